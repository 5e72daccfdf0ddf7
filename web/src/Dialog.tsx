// A dialog over the page: it holds the focus, and Escape closes it.
import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { t } from "./i18n/index.ts";

type Props = { title: string; close: () => void; wide?: boolean; role?: "dialog" | "alertdialog"; children: ComponentChildren };

export function Dialog({ title, close, wide = false, role = "dialog", children }: Props) {
  const element = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    element.current!.showModal();
  }, []);
  return (
    <dialog ref={element} role={role} class={wide ? "wide" : ""} aria-label={title} onClose={close} onClick={(event) => event.target === element.current && element.current!.close()}>
      <div class="dialog">
        <header>
          <h2>{title}</h2>
          <button class="quiet" onClick={() => element.current!.close()}>{t("keys.close")}</button>
        </header>
        {children}
      </div>
    </dialog>
  );
}
