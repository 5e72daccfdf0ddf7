import { render } from "preact";
import { useEffect, useState } from "preact/hooks";
import { Cases } from "./Cases.tsx";
import { Conversation } from "./Conversation.tsx";
import { Header } from "./Header.tsx";
import { duration, language, t } from "./i18n/index.ts";
import "./page.css";
import { Start } from "./Start.tsx";
import * as store from "./store.ts";
import { scrollTogether, Viewer } from "./viewer/Viewer.tsx";
import { Work, workOpen } from "./Work.tsx";

function Page() {
  const item = store.current.value;
  return (
    <>
      <Header />
      {!store.online.value && <p class="banner" role="status">{t("offline")}</p>}
      {store.needsKey.value ? <KeyForm /> : store.ended.value ? <Ended /> : item ? <Workspace /> : <Start />}
      {workOpen.value && <Work />}
      <div class="notices" role="status" aria-live="polite">
        {store.notices.value.map((notice) => (
          <p key={notice.id} class={notice.error ? "error" : ""}>
            {notice.text} <button aria-label={t("keys.close")} onClick={() => store.dismiss(notice.id)}>×</button>
          </p>
        ))}
      </div>
    </>
  );
}

function Workspace() {
  const item = store.current.value!;
  const beside = store.second.value;
  const shown = item.turns.find((turn) => turn.key === store.shownTurn.value) ?? item.turns.at(-1);
  const image = item.image;
  const notes = [...(image.warnings ?? [])];
  return (
    <main class="workspace">
      <h1 class="hidden">{t("start.title")}</h1>
      <Cases />
      <div class="picture">
        <div class={beside ? "pair" : "single"}>
          <Viewer key={image.image_id} item={item} answer={shown?.answer ?? null} question={shown?.question ?? ""} region={shown?.region ?? null} main />
          {beside && <Viewer key={beside.image.image_id} item={beside} answer={beside.turns.at(-1)?.answer ?? null} question={beside.turns.at(-1)?.question ?? ""} main={false} />}
        </div>
        {beside && (
          <p class="pair-tools">
            <label>
              <input type="checkbox" checked={scrollTogether.value} onChange={(event) => (scrollTogether.value = event.currentTarget.checked)} /> {t("viewer.sync")}
            </label>
            <button onClick={() => (store.secondId.value = null)}>{t("viewer.close_second")}</button>
          </p>
        )}
        {image.burned_in_annotation && <p class="warning">{t("privacy.burned")}</p>}
        {notes.map((note) => <p key={note} class="small">{note}</p>)}
        <p class="small">
          {image.expires_in_seconds ? t("privacy.local", { time: duration(image.expires_in_seconds) }) : t("privacy.never")}{" "}
          {image.removed_metadata.length > 0 && t("privacy.removed", { parts: image.removed_metadata.join(", ") })}
        </p>
      </div>
      <Conversation key={image.image_id} item={item} />
    </main>
  );
}

function Ended() {
  return (
    <main class="start">
      <h1>{t("ended.title")}</h1>
      <p class="lead">{t("ended.text")}</p>
      <button class="primary" onClick={store.beginAgain}>{t("ended.new")}</button>
    </main>
  );
}

function KeyForm() {
  const [key, setKey] = useState("");
  return (
    <main class="start">
      <h1>{t("key.title")}</h1>
      <form onSubmit={(event) => (event.preventDefault(), void store.useKey(key.trim()))}>
        <input type="password" aria-label={t("key.title")} value={key} onInput={(event) => setKey(event.currentTarget.value)} />
        <button class="primary" disabled={!key.trim()}>{t("key.save")}</button>
      </form>
    </main>
  );
}

type NamedFile = { file: Blob; name: string };

/** The files of a drop or a paste, those of folders included. */
async function filesOf(transfer: DataTransfer | null): Promise<NamedFile[]> {
  const entries = [...(transfer?.items ?? [])].map((item) => item.webkitGetAsEntry?.() ?? null);
  const files = [...(transfer?.files ?? [])];
  if (!entries.some((entry) => entry?.isDirectory)) return files.map((file) => ({ file, name: file.name }));
  return (await Promise.all(entries.map((entry) => (entry ? filesIn(entry) : [])))).flat();
}

async function filesIn(entry: FileSystemEntry): Promise<NamedFile[]> {
  if (entry.isFile) {
    const file = await new Promise<File>((resolve, reject) => (entry as FileSystemFileEntry).file(resolve, reject));
    return [{ file, name: file.name }];
  }
  const reader = (entry as FileSystemDirectoryEntry).createReader();
  const all: NamedFile[] = [];
  for (;;) {
    const batch = await new Promise<FileSystemEntry[]>((resolve, reject) => reader.readEntries(resolve, reject));
    if (!batch.length) return all;
    for (const inner of batch) all.push(...(await filesIn(inner)));
  }
}

function App() {
  useEffect(() => {
    document.documentElement.lang = language.value === "zh" ? "zh-CN" : language.value;
    const drop = (event: DragEvent) => {
      event.preventDefault();
      if (event.type === "drop") void filesOf(event.dataTransfer).then(store.addFiles);
    };
    const paste = (event: ClipboardEvent) => void filesOf(event.clipboardData).then(store.addFiles);
    addEventListener("dragover", drop);
    addEventListener("drop", drop);
    addEventListener("paste", paste);
    addEventListener("popstate", () => void store.openFromAddress());
    setInterval(store.dropExpired, 5000);
    void store.start();
  }, []);
  return <Page />;
}

render(<App />, document.getElementById("app")!);
