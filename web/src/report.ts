// A session as a report to print, a table, or data.
import type { Case, Turn } from "./api.ts";
import { pictureBlob } from "./api.ts";
import { t } from "./i18n/index.ts";
import { reasonText } from "./reasons.ts";
import * as store from "./store.ts";

const escaped = (text: string): string => text.replace(/[&<>"]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[c]!);

function download(name: string, type: string, content: string): void {
  const url = URL.createObjectURL(new Blob([content], { type }));
  const link = Object.assign(document.createElement("a"), { href: url, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

const rows = (): { item: Case; turn: Turn }[] => (store.conversation.value?.cases ?? []).flatMap((item) => item.turns.map((turn) => ({ item, turn })));

/** A cell of a table; a leading sign would be read as a formula. */
const cell = (value: unknown): string => {
  const text = String(value ?? "");
  const safe = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return `"${safe.replaceAll('"', '""')}"`;
};

export function downloadCsv(): void {
  const head = ["picture", "digest", "question", "answer", "confidence", "abstained", "reason", "source", "side", "model", "asked"];
  const lines = rows().map(({ item, turn }) => {
    const a = turn.answer;
    return [item.name, item.image.image_id.slice(0, 24), turn.question, a?.answer, a?.confidence, a?.abstained, a?.reason, a?.source, a?.side, a?.model.id, new Date(turn.asked_at).toISOString()].map(cell).join(",");
  });
  download("medical-vqa.csv", "text/csv;charset=utf-8", `\ufeff${[head.join(","), ...lines].join("\r\n")}\r\n`);
}

export function downloadJson(): void {
  download("medical-vqa.json", "application/json", JSON.stringify(store.conversation.value?.cases ?? [], null, 1));
}

async function dataUrl(blob: Blob): Promise<string> {
  const reader = new FileReader();
  return new Promise((resolve) => {
    reader.onload = () => resolve(String(reader.result));
    reader.readAsDataURL(blob);
  });
}

/** One self-contained page, which is printed from a frame of its own. */
export async function printReport(): Promise<void> {
  const sections = await Promise.all(
    (store.conversation.value?.cases ?? []).filter((item) => item.turns.length).map(async (item) => {
      const picture = await pictureBlob(item.image.image_id).then(dataUrl).catch(() => "");
      const turns = item.turns.filter((turn) => turn.answer).map((turn) => {
        const a = turn.answer!;
        const text = a.abstained ? `${t("turn.withheld")}: ${reasonText(a.reason_code, a.reason_arguments, a.reason)}` : a.answer;
        const confidence = a.confidence === null ? "" : `${Math.round(100 * a.confidence)} %`;
        return `<tr><td>${escaped(turn.question)}</td><td>${escaped(text)}</td><td>${confidence}</td></tr>`;
      });
      const facts = Object.entries(item.image.header_fields).map(([name, value]) => `${name}: ${value}`).join(", ");
      return `<section><h2>${escaped(item.name)}</h2><img src="${picture}" alt=""><p>${t("report.digest")}: <code>${item.image.image_id.slice(0, 24)}</code>, ${item.image.width} × ${item.image.height}${facts ? `, ${escaped(facts)}` : ""}</p><table>${turns.join("")}</table></section>`;
    }),
  );
  const model = store.model.value;
  const html = `<h1>${t("report.title")}</h1><p>${t("report.date")}: ${new Date().toLocaleString()}. ${t("report.model")}: ${escaped(model?.name ?? "")} (${model?.id ?? ""}).</p><p><strong>${t("safety")}</strong></p>${sections.join("")}`;
  const area = Object.assign(document.createElement("div"), { id: "report", innerHTML: html });
  document.getElementById("report")?.remove();
  document.body.append(area);
  await Promise.all([...area.querySelectorAll("img")].map((image) => image.decode().catch(() => undefined)));
  print();
}
