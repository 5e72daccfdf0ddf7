// The list of this session's pictures.
import { useEffect, useState } from "preact/hooks";
import type { Case } from "./api.ts";
import { pictureBlob } from "./api.ts";
import { Dialog } from "./Dialog.tsx";
import { captionOf, t } from "./i18n/index.ts";
import * as store from "./store.ts";
import { FileButton } from "./Start.tsx";

const SEARCHED_FROM = 4; // pictures

export function Cases() {
  const [filter, setFilter] = useState("");
  const [deleting, setDeleting] = useState<Case | null>(null);
  const cases = store.conversation.value?.cases ?? [];
  const words = filter.toLowerCase();
  const matching = cases.filter((item) => `${item.name} ${captionOf(item.name)} ${item.turns.map((turn) => `${turn.question} ${turn.answer?.answer ?? ""}`).join(" ")}`.toLowerCase().includes(words));
  return (
    <>
      <nav class="cases" aria-label={t("cases.title")}>
        {cases.length >= SEARCHED_FROM && <input type="search" aria-label={t("cases.search")} placeholder={t("cases.search")} value={filter} onInput={(event) => setFilter(event.currentTarget.value)} />}
        <ul>
          {matching.map((item) => (
            <li key={item.image.image_id} class={item.image.image_id === store.currentId.value ? "current" : ""}>
              <button class="case" aria-current={item.image.image_id === store.currentId.value} onClick={() => store.choose(item.image.image_id)} title={expiry(item)}>
                <Thumbnail item={item} />
                <span class="name">{captionOf(item.name)}</span>
              </button>
              <button class="delete" aria-label={t("cases.delete", { name: captionOf(item.name) })} title={t("cases.delete", { name: captionOf(item.name) })} onClick={() => setDeleting(item)}>
                ×
              </button>
              {item.image.image_id !== store.currentId.value && (
                <button
                  class="beside"
                  aria-pressed={store.secondId.value === item.image.image_id}
                  aria-label={t("cases.compare", { name: captionOf(item.name) })}
                  title={t("cases.compare", { name: captionOf(item.name) })}
                  onClick={() => (store.secondId.value = store.secondId.value === item.image.image_id ? null : item.image.image_id)}
                >
                  ◫
                </button>
              )}
            </li>
          ))}
          {!matching.length && cases.length > 0 && <li class="small">{t("cases.none")}</li>}
        </ul>
        {store.uploading.value.map((name, index) => <p key={index} class="small">{t("cases.uploading", { name })}</p>)}
        <FileButton label={t("cases.add")} />
        <button class="quiet" onClick={store.beginAgain}>{t("cases.begin")}</button>
      </nav>
      {deleting && <Confirm item={deleting} close={() => setDeleting(null)} />}
    </>
  );
}

/** Asks before a picture is deleted; what a key that is still held down presses is "Keep". */
function Confirm({ item, close }: { item: Case; close: () => void }) {
  const remove = (event: Event) => {
    (event.currentTarget as HTMLElement).closest("dialog")!.close();
    document.querySelector<HTMLElement>(".cases .current .case")?.focus(); // the button that opened this goes with the picture
    void store.removeCase(item);
  };
  return (
    <Dialog title={t("cases.confirm")} close={close} role="alertdialog">
      <p>{captionOf(item.name)}</p>
      <form method="dialog" class="line">
        <button type="button" class="primary" onClick={remove}>{t("confirm.yes")}</button>
        <button autofocus>{t("confirm.no")}</button>
      </form>
    </Dialog>
  );
}

const expiry = (item: Case): string => (item.expires_at ? `${captionOf(item.name)}, ${t("cases.expires", { time: new Date(item.expires_at).toLocaleTimeString() })}` : captionOf(item.name));

function Thumbnail({ item }: { item: Case }) {
  const [url, setUrl] = useState("");
  useEffect(() => {
    let address = "";
    pictureBlob(item.image.image_id)
      .then((blob) => setUrl((address = URL.createObjectURL(blob))))
      .catch(() => undefined);
    return () => URL.revokeObjectURL(address);
  }, [item.image.image_id]);
  return url ? <img src={url} alt="" /> : <span class="thumbnail" />;
}
