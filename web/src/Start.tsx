// What is shown before there is a picture.
import { useEffect, useRef, useState } from "preact/hooks";
import { exampleBlob } from "./api.ts";
import { captionOf, duration, t } from "./i18n/index.ts";
import * as store from "./store.ts";

export function FileButton({ label }: { label: string }) {
  const field = useRef<HTMLInputElement>(null);
  return (
    <>
      <button class="primary" onClick={() => field.current!.click()}>{label}</button>
      <input
        ref={field}
        type="file"
        multiple
        hidden
        data-testid="files"
        onChange={(event) => {
          const files = [...(event.currentTarget.files ?? [])].map((file) => ({ file, name: file.name }));
          event.currentTarget.value = "";
          void store.addFiles(files);
        }}
      />
    </>
  );
}

export function Start() {
  const limits = store.model.value?.limits;
  const examples = store.examples.value;
  return (
    <main class="start">
      <h1>{t("start.title")}</h1>
      <p class="lead">{t("start.text")}</p>
      <div class="drop">
        <FileButton label={t("start.choose")} />
        {limits && <p class="small">{t("start.formats", { formats: limits.formats.join(", "), megabytes: Math.round(limits.max_upload_bytes / 2 ** 20) })}</p>}
        <p class="small">{t("start.series")}</p>
        <p class="small">{limits?.image_ttl_seconds ? t("privacy.local", { time: duration(limits.image_ttl_seconds) }) : t("privacy.never")}</p>
        {store.uploading.value.map((name, index) => <p key={index}>{t("cases.uploading", { name })}</p>)}
      </div>
      {examples && (
        <>
          <h2>{t("start.examples")}</h2>
          <ul class="examples">
            {examples.examples.map((example) => (
              <li key={example.id}>
                <button onClick={() => void store.openExample(example.image_path, example.caption)}>
                  <ExampleImage path={example.image_path} />
                  <span>{captionOf(example.caption)}</span>
                </button>
              </li>
            ))}
          </ul>
          <p class="small">{t("start.source", { source: examples.source })}</p>
        </>
      )}
    </main>
  );
}

/** An example's picture, requested with the key where the server needs one. */
function ExampleImage({ path }: { path: string }) {
  const [url, setUrl] = useState("");
  useEffect(() => {
    let address = "";
    exampleBlob(path)
      .then((blob) => setUrl((address = URL.createObjectURL(blob))))
      .catch(() => undefined);
    return () => URL.revokeObjectURL(address);
  }, [path]);
  return url ? <img src={url} alt="" /> : <span />;
}
