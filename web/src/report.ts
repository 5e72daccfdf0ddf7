// A session as a report to print or to keep, a table, or data.
import type { Answer, Case, Turn } from "./api.ts";
import { dicomReport, pictureBlob } from "./api.ts";
import { captionOf, language, nameOf, t } from "./i18n/index.ts";
import { mapToShow } from "./localizable.ts";
import { answerText, reasonText } from "./reasons.ts";
import * as store from "./store.ts";

const escaped = (text: string): string => text.replace(/[&<>"]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[c]!);

export function download(name: string, type: string, content: string | Blob): void {
  const url = URL.createObjectURL(new Blob([content], { type }));
  const link = Object.assign(document.createElement("a"), { href: url, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

/** Copies text, also on a page without TLS, where there is no clipboard interface; whether it worked. */
export async function copyText(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const focused = document.activeElement as HTMLElement | null;
    const field = Object.assign(document.createElement("textarea"), { value: text });
    document.body.append(field);
    field.select();
    const copied = document.execCommand("copy");
    field.remove();
    focused?.focus();
    return copied;
  }
}

const rows = (): { item: Case; turn: Turn }[] => (store.conversation.value?.cases ?? []).flatMap((item) => item.turns.map((turn) => ({ item, turn })));

/** A cell of a table; a leading sign would be read as a formula. */
const cell = (value: unknown): string => {
  const text = String(value ?? "");
  const safe = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return `"${safe.replaceAll('"', '""')}"`;
};

/** Rows as a table that spreadsheets open in UTF-8. */
export const csv = (table: readonly (readonly unknown[])[]): string => `\ufeff${table.map((row) => row.map(cell).join(",")).join("\r\n")}\r\n`;

export const digestOf = (item: Case): string => item.image.image_id.slice(0, 24);

export function downloadCsv(): void {
  const head = ["picture", "digest", "question", "answer", "confidence", "confidence_basis", "abstained", "cut_off", "reason_code", "reason", "source", "side", "slice", "region", "region_answer", "region_abstained", "model", "time"];
  const lines = rows().map(({ item, turn }) => {
    const a = turn.answer;
    const region = turn.region ? [turn.region.left, turn.region.top, turn.region.right, turn.region.bottom].map(Math.round).join(" ") : "";
    return [item.name, digestOf(item), turn.question, a?.answer, a?.confidence, a?.confidence_basis, a?.abstained, a?.cut_off, a?.reason_code, a?.reason, a?.source, a?.side, a?.frame == null ? "" : a.frame + 1, region, turn.region_answer?.answer, turn.region_answer?.abstained, a?.model.id, new Date(turn.asked_at).toISOString()];
  });
  download("medical-vqa.csv", "text/csv;charset=utf-8", csv([head, ...lines]));
}

export function downloadJson(): void {
  download("medical-vqa.json", "application/json", JSON.stringify(store.conversation.value?.cases ?? [], null, 1));
}

type Illustration = { url: string; caption: string };

/** The picture of a case, and again under each attention map that its answers show; as data addresses. */
async function illustrations(item: Case): Promise<Illustration[]> {
  const bitmap = await createImageBitmap(await pictureBlob(item.image.image_id));
  const maps = item.turns.flatMap(({ question, answer }) => {
    const map = answer && !answer.slices?.length && answer.frame == null ? mapToShow(question, answer) : null;
    return map ? [{ url: underMap(bitmap, map), caption: `${t("viewer.map")}: ${question}` }] : [];
  });
  return [{ url: outlined(bitmap, item), caption: "" }, ...maps];
}

function copyOf(bitmap: ImageBitmap): [HTMLCanvasElement, CanvasRenderingContext2D] {
  const canvas = Object.assign(document.createElement("canvas"), { width: bitmap.width, height: bitmap.height });
  const context = canvas.getContext("2d")!;
  context.drawImage(bitmap, 0, 0);
  return [canvas, context];
}

function underMap(bitmap: ImageBitmap, map: NonNullable<Answer["attention_map"]>): string {
  const [canvas, context] = copyOf(bitmap);
  const most = Math.max(...map.values.flat());
  const [width, height] = [bitmap.width / map.columns, bitmap.height / map.rows];
  context.fillStyle = "#ffb000";
  map.values.forEach((row, y) =>
    row.forEach((value, x) => {
      context.globalAlpha = (0.6 * value) / most;
      context.fillRect(x * width, y * height, width, height);
    }),
  );
  return canvas.toDataURL("image/png");
}

/** The picture of a case with what its answers have outlined and the parts that were asked about. */
function outlined(bitmap: ImageBitmap, item: Case): string {
  const [canvas, context] = copyOf(bitmap);
  context.strokeStyle = "#ffb000";
  context.lineWidth = Math.max(2, bitmap.width / 300);
  const evidence = item.turns.flatMap((turn) => (turn.answer?.slices?.length ? [] : (turn.answer?.evidence ?? [])));
  for (const { polygon } of evidence) {
    for (const ring of polygon.coordinates.flat()) {
      context.beginPath();
      for (const [x, y] of ring) context.lineTo(x, y);
      context.closePath();
      context.stroke();
    }
  }
  for (const { region } of item.turns) if (region) context.strokeRect(region.left, region.top, region.right - region.left, region.bottom - region.top);
  return canvas.toDataURL("image/png");
}


const words = (answer: Answer): string => (answer.abstained ? `${t("turn.withheld")}: ${reasonText(answer)}` : answerText(answer));

function turnRow(turn: Turn): string {
  const answer = turn.answer!;
  const confidence = answer.confidence === null || answer.abstained ? "" : `${Math.round(100 * answer.confidence)} %`;
  const place = answer.frame != null && answer.plane ? t("report.slice", { number: answer.frame + 1, plane: t(`plane.${answer.plane}`) }) : "";
  const [center = "", width = ""] = turn.window?.split(",") ?? [];
  const window = turn.window ? `<br>${t("report.window", { center, width })}` : "";
  const part = turn.region_answer ? `<br>${t("turn.part")}: ${escaped(words(turn.region_answer))}` : "";
  return `<tr><td>${escaped(turn.question)}</td><td>${escaped(words(answer))}${part}</td><td>${confidence}</td><td>${place}${window}</td><td>${new Date(turn.asked_at).toLocaleString(language.value)}</td></tr>`;
}

async function section(item: Case): Promise<string> {
  const pictures = await illustrations(item).catch(() => []);
  const facts = Object.entries(item.image.header_fields).map(([name, value]) => `${name}: ${value}`);
  const frame = item.image.frames > 1 && item.image.frame !== undefined ? [t("viewer.frame", { number: item.image.frame + 1, count: item.image.frames })] : [];
  const names = [...new Set(item.turns.flatMap((turn) => turn.answer?.evidence.map((one) => nameOf(one.name)) ?? []))];
  const details = [`${t("report.digest")}: <code>${digestOf(item)}</code>`, `${item.image.width} × ${item.image.height}`, ...frame, ...facts.map(escaped), ...(names.length ? [`${t("viewer.evidence")}: ${escaped(names.join(", "))}`] : [])];
  const figures = pictures.map(({ url, caption }) => `<figure><img src="${url}" alt=""><figcaption>${escaped(caption)}</figcaption></figure>`).join("");
  const head = [t("table.question"), t("work.answer"), t("report.confidence"), t("viewer.slice"), t("report.asked")].map((text) => `<th>${text}</th>`).join("");
  return `<section><h2>${escaped(captionOf(item.name))}</h2>${figures}<p>${details.join(", ")}</p><table><tr>${head}</tr>${item.turns.filter((turn) => turn.answer).map(turnRow).join("")}</table></section>`;
}

async function reportBody(): Promise<string> {
  const cases = (store.conversation.value?.cases ?? []).filter((item) => item.turns.some((turn) => turn.answer));
  const sections = await Promise.all(cases.map(section));
  const model = store.model.value;
  return `<h1>${t("report.title")}</h1><p>${t("report.date")}: ${new Date().toLocaleString(language.value)}. ${t("report.model")}: ${escaped(model?.name ?? "")} (${escaped(model?.id ?? "")}).</p><p><strong>${t("safety")}</strong></p>${sections.join("")}`;
}

const STYLE = "body{font:15px/1.45 system-ui,sans-serif;max-width:960px;margin:2em auto;padding:0 1em;color:#111}img{max-width:60%;max-height:9cm}table{border-collapse:collapse;width:100%}td,th{border:1px solid #999;padding:4px 8px;vertical-align:top;text-align:left}section{break-inside:avoid}figure{margin:0 0 8px}figcaption{font-size:13px}";

/** One self-contained file. */
export async function downloadReport(): Promise<void> {
  download("medical-vqa-report.html", "text/html;charset=utf-8", `<!doctype html><html lang="${language.value}"><meta charset="utf-8"><title>${t("report.title")}</title><style>${STYLE}</style><body>${await reportBody()}</body></html>`);
}

const reportable = (item: Case): boolean => Boolean(item.image.dicom_report) && item.turns.some((turn) => turn.answer);

/** Whether an answer of the session is about a picture that came as DICOM, where the server keeps what a report must repeat. */
export const hasDicom = (): boolean => (store.conversation.value?.cases ?? []).some(reportable);

/** A DICOM report of each picture that came as DICOM and was asked about. */
export async function downloadDicom(): Promise<void> {
  const id = store.conversation.value?.id;
  const cases = (store.conversation.value?.cases ?? []).filter(reportable);
  for (const [index, item] of cases.entries()) {
    try {
      const name = cases.length > 1 ? `medical-vqa-report-${index + 1}.dcm` : "medical-vqa-report.dcm";
      download(name, "application/dicom", await dicomReport(id!, item.image.image_id));
    } catch (error) {
      store.notify(`${captionOf(item.name)}: ${store.failureOf(error)}`, true);
    }
  }
}

/** The same, printed: the browser's dialog writes a PDF. */
export async function printReport(): Promise<void> {
  const area = Object.assign(document.createElement("div"), { id: "report", innerHTML: await reportBody() });
  document.getElementById("report")?.remove();
  document.body.append(area);
  await Promise.all([...area.querySelectorAll("img")].map((image) => image.decode().catch(() => undefined)));
  const printed = store.conversation.value;
  const stop = store.conversation.subscribe((now) => {
    if (now === printed) return;
    area.remove(); // it is no longer what the session holds, and a deleted picture leaves it too
    stop();
  });
  print();
}
