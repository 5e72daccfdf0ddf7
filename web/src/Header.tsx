// Name, model, safety note, export, language and theme.
import { signal } from "@preact/signals";
import { useEffect, useState } from "preact/hooks";
import { chooseLanguage, language, LANGUAGES, t, type Language } from "./i18n/index.ts";
import { downloadCsv, downloadJson, printReport } from "./report.ts";
import * as store from "./store.ts";

type Theme = "system" | "dark" | "light";
const theme = signal<Theme>((localStorage.getItem("theme") as Theme | null) ?? "system");

export function Header() {
  const [dialog, setDialog] = useState(false);
  useEffect(() => {
    document.documentElement.dataset.theme = theme.value;
  }, [theme.value]);
  const model = store.model.value;
  const hasTurns = store.conversation.value?.cases.some((item) => item.turns.length) ?? false;
  return (
    <header class="top">
      <a class="skip" href="#question">{t("skip")}</a>
      <strong class="brand">{t("title")}</strong>
      {model && <button class="chip" onClick={() => setDialog(true)}>{model.name}</button>}
      <span class="safety" role="note">{t("safety")}</span>
      <span class="spacer" />
      {hasTurns && (
        <select aria-label={t("export.title")} value="" onChange={(event) => (exportAs(event.currentTarget.value), (event.currentTarget.value = ""))}>
          <option value="">{t("export.title")}</option>
          <option value="report">{t("export.report")}</option>
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
      {dialog && model && <AboutModel close={() => setDialog(false)} />}
    </header>
  );
}

function exportAs(form: string): void {
  if (form === "report") void printReport();
  if (form === "csv") downloadCsv();
  if (form === "json") downloadJson();
}

function AboutModel({ close }: { close: () => void }) {
  const model = store.model.value!;
  const data = model.data as { title?: string; rows?: number; images?: number; license?: string };
  return (
    <div class="backdrop" onClick={close}>
      <div class="dialog" role="dialog" aria-modal="true" aria-label={t("model.about")} onClick={(event) => event.stopPropagation()} onKeyDown={(event) => event.key === "Escape" && close()}>
        <h2>{model.name}</h2>
        <dl>
          <dt>{t("model.use")}</dt>
          <dd>{model.intended_use}</dd>
          <dt>{t("model.data")}</dt>
          <dd>{[data.title, data.rows && `${data.rows} questions`, data.images && `${data.images} images`].filter(Boolean).join(", ")}</dd>
          <dt>{t("model.license")}</dt>
          <dd>{model.license}</dd>
          <dt>{t("model.id")}</dt>
          <dd><code>{model.id}</code></dd>
        </dl>
        <button class="primary" autofocus onClick={close}>{t("keys.close")}</button>
      </div>
    </div>
  );
}
