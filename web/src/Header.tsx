// Name, model, safety note, export, language and theme.
import { signal } from "@preact/signals";
import { useEffect, useState } from "preact/hooks";
import { percent } from "./Conversation.tsx";
import { Dialog } from "./Dialog.tsx";
import { chooseLanguage, language, LANGUAGES, number, t, type Language } from "./i18n/index.ts";
import { downloadCsv, downloadDicom, downloadJson, downloadReport, hasDicom, printReport } from "./report.ts";
import * as store from "./store.ts";
import { Table } from "./Table.tsx";
import { workOpen } from "./Work.tsx";

type Theme = "system" | "dark" | "light";
const theme = signal<Theme>((localStorage.getItem("theme") as Theme | null) ?? "system");

/** The arrow keys open a closed list of actions: else they would choose the next one, which acts at once. */
function openList(event: KeyboardEvent & { currentTarget: HTMLSelectElement }): void {
  const list = event.currentTarget;
  if (!/^Arrow(Up|Down)$/.test(event.key) || event.altKey || !CSS.supports("selector(:open)") || list.matches(":open")) return;
  event.preventDefault();
  list.showPicker();
}

export function Header() {
  const [about, setAbout] = useState(false);
  const [table, setTable] = useState(false);
  useEffect(() => {
    document.documentElement.dataset.theme = theme.value;
  }, [theme.value]);
  const model = store.model.value;
  const hasTurns = store.conversation.value?.cases.some((item) => item.turns.length) ?? false;
  const exportAs = (form: string) => {
    if (form === "table") setTable(true);
    if (form === "print") void printReport();
    if (form === "html") void downloadReport();
    if (form === "dicom") void downloadDicom();
    if (form === "csv") downloadCsv();
    if (form === "json") downloadJson();
  };
  return (
    <header class="top">
      <a class="skip" href="#question" onClick={(event) => (event.preventDefault(), document.getElementById("question")?.focus())}>{t("skip")}</a>
      <strong class="brand">{t("title")}</strong>
      {model && <button class="chip" aria-haspopup="dialog" aria-label={`${t("model.about")}: ${model.name}`} onClick={() => setAbout(true)}>{model.name}</button>}
      <span class="safety" role="note">{t("safety")}</span>
      <span class="spacer" />
      <button class="quiet" onClick={() => (workOpen.value = true)}>{t("work.open")}</button>
      {hasTurns && (
        <select
          class="export"
          aria-label={t("export.title")}
          value=""
          onKeyDown={openList}
          onChange={(event) => (exportAs(event.currentTarget.value), (event.currentTarget.value = ""))}
        >
          <option value="">{t("export.title")}</option>
          <option value="table">{t("export.table")}</option>
          <option value="print">{t("export.report")}</option>
          <option value="html">{t("report.html")}</option>
          {hasDicom() && <option value="dicom">{t("report.dicom")}</option>}
          <option value="csv">{t("export.csv")}</option>
          <option value="json">{t("export.json")}</option>
        </select>
      )}
      <select
        aria-label={t("theme.label")}
        value={theme.value}
        onChange={(event) => {
          theme.value = event.currentTarget.value as Theme;
          localStorage.setItem("theme", theme.value);
        }}
      >
        {(["system", "dark", "light"] as const).map((name) => <option key={name} value={name}>{t(`theme.${name}`)}</option>)}
      </select>
      <select aria-label={t("language")} value={language.value} onChange={(event) => chooseLanguage(event.currentTarget.value as Language)}>
        {LANGUAGES.map(({ code, name }) => <option key={code} value={code}>{name}</option>)}
      </select>
      {about && model && <AboutModel close={() => setAbout(false)} />}
      {table && <Table close={() => setTable(false)} />}
    </header>
  );
}

function AboutModel({ close }: { close: () => void }) {
  const model = store.model.value!;
  const data = model.data as { title?: string; rows?: number; images?: number; license?: string };
  const exact = model.checkpoint_selection?.scores?.em;
  const refit = model.refit_of;
  const [type, right, without, count] = t("model.scores_head").split("|");
  const reliability = (model.reliability ?? []).filter((row) => row.kind === "question type");
  return (
    <Dialog title={`${t("model.about")}: ${model.name}`} close={close}>
      <p><strong>{t("safety")}</strong></p>
      <dl>
        <dt>{t("model.use")}</dt>
        <dd>{model.intended_use}</dd>
        <dt>{t("model.cannot")}</dt>
        <dd>{t("model.cannot_text")}</dd>
        {data.rows && data.images && (
          <>
            <dt>{t("model.data")}</dt>
            <dd>{t("model.training", { rows: number(data.rows), images: number(data.images), title: data.title ?? "" })}</dd>
          </>
        )}
        {refit?.scores?.em !== undefined && (
          <dd>{t("model.refit", { percent: percent(refit.scores.em), split: refit.split ?? "", images: number(refit.images ?? 0) })}</dd>
        )}
        {exact !== undefined && <dd>{t("model.exact", { percent: percent(exact), split: model.checkpoint_selection.split ?? "" })}</dd>}
      </dl>
      {reliability.length > 0 && (
        <>
          <h3>{t("model.scores")}</h3>
          <table>
            <thead><tr><th>{type}</th><th>{right}</th><th>{without}</th><th>{count}</th></tr></thead>
            <tbody>
              {reliability.map((row) => (
                <tr key={row.name} class={row.above_baseline ? "" : "below"}>
                  <td>{row.name}</td><td>{percent(row.accuracy)}</td><td>{percent(row.baseline_accuracy)}</td><td>{row.questions}</td>
                </tr>
              ))}
            </tbody>
          </table>
          <p class="small">{t("model.scores_note")}</p>
        </>
      )}
      <p class="small">{t("model.license")}: {model.license}. {t("model.id")}: <code>{model.id}</code></p>
    </Dialog>
  );
}
