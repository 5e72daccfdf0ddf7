import { render } from "preact";
import { useEffect, useState } from "preact/hooks";
import { Cases } from "./Cases.tsx";
import { Conversation } from "./Conversation.tsx";
import { Header } from "./Header.tsx";
import { duration, language, t } from "./i18n/index.ts";
import "./page.css";
import { Start } from "./Start.tsx";
import * as store from "./store.ts";
import { Viewer } from "./viewer/Viewer.tsx";

function Page() {
  const item = store.current.value;
  return (
    <>
      <Header />
      {!store.online.value && <p class="banner" role="status">{t("offline")}</p>}
      {store.needsKey.value ? <KeyForm /> : store.ended.value ? <Ended /> : item ? <Workspace /> : <Start />}
      <div class="notices" role="status" aria-live="polite">
        {store.notices.value.map((notice) => <p key={notice.id} class={notice.error ? "error" : ""}>{notice.text}</p>)}
      </div>
    </>
  );
}

function Workspace() {
  const item = store.current.value!;
  const shown = item.turns.find((turn) => turn.key === store.shownTurn.value) ?? item.turns.at(-1);
  const image = item.image;
  return (
    <main class="workspace">
      <h1 class="hidden">{t("start.title")}</h1>
      <Cases />
      <div class="picture">
        <Viewer item={item} answer={shown?.answer ?? null} />
        {image.burned_in_annotation && <p class="warning">{t("privacy.burned")}</p>}
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

function filesOf(transfer: DataTransfer | null): { file: Blob; name: string }[] {
  return [...(transfer?.files ?? [])].map((file) => ({ file, name: file.name }));
}

function App() {
  useEffect(() => {
    document.documentElement.lang = language.value === "zh" ? "zh-CN" : language.value;
    const drop = (event: DragEvent) => {
      event.preventDefault();
      if (event.type === "drop") void store.addFiles(filesOf(event.dataTransfer));
    };
    const paste = (event: ClipboardEvent) => void store.addFiles(filesOf(event.clipboardData));
    addEventListener("dragover", drop);
    addEventListener("drop", drop);
    addEventListener("paste", paste);
    void store.start();
  }, []);
  return <Page />;
}

render(<App />, document.getElementById("app")!);
