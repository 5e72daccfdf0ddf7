// Questions and answers about one picture.
import { useEffect, useRef, useState } from "preact/hooks";
import type { Answer, Case, Turn } from "./api.ts";
import * as api from "./api.ts";
import { language, t } from "./i18n/index.ts";
import { reasonText } from "./reasons.ts";
import * as store from "./store.ts";

export function Conversation({ item }: { item: Case }) {
  const [text, setText] = useState(item.draft);
  const [suggestions, setSuggestions] = useState<string[]>([]);
  const end = useRef<HTMLDivElement>(null);
  const field = useRef<HTMLTextAreaElement>(null);
  const imageId = item.image.image_id;

  useEffect(() => setText(item.draft), [imageId]);
  useEffect(() => {
    api.suggestedQuestions(imageId, language.value).then(setSuggestions).catch(() => setSuggestions([]));
  }, [imageId, language.value]);
  useEffect(() => end.current?.scrollIntoView({ block: "nearest" }), [item.turns.length, item.turns.at(-1)?.status]);
  useEffect(() => {
    const focusField = (event: KeyboardEvent) => {
      if (event.key !== "/" || event.target instanceof HTMLTextAreaElement || event.target instanceof HTMLInputElement) return;
      field.current?.focus();
      event.preventDefault();
    };
    addEventListener("keydown", focusField);
    return () => removeEventListener("keydown", focusField);
  }, []);

  const send = (question: string) => {
    void store.ask(imageId, question);
    setText("");
  };
  const edit = (question: string) => {
    setText(question);
    field.current?.focus();
  };

  return (
    <section class="conversation">
      <div class="turns" role="log" aria-live="polite">
        {item.turns.map((turn) => (
          <TurnCard key={turn.key} turn={turn} ask={send} edit={edit} />
        ))}
        <div ref={end} />
      </div>
      <form
        class="ask"
        onSubmit={(event) => {
          event.preventDefault();
          send(text);
        }}
      >
        {!item.turns.length && suggestions.length > 0 && (
          <div class="suggestions">
            <span>{t("ask.suggestions")}</span>
            {suggestions.slice(0, 4).map((question) => (
              <button type="button" key={question} onClick={() => send(question)}>
                {question}
              </button>
            ))}
          </div>
        )}
        <div class="field">
          <textarea
            ref={field}
            id="question"
            rows={1}
            maxLength={1000}
            aria-label={t("ask.placeholder")}
            placeholder={t("ask.placeholder")}
            value={text}
            onInput={(event) => {
              setText(event.currentTarget.value);
              store.saveDraft(imageId, event.currentTarget.value);
            }}
            onKeyDown={(event) => {
              if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
              event.preventDefault();
              send(text);
            }}
          />
          <button class="primary" disabled={!text.trim()}>
            {t("ask.send")}
          </button>
        </div>
        <p class="small">{t("ask.memory")}</p>
      </form>
    </section>
  );
}

function TurnCard({ turn, ask, edit }: { turn: Turn; ask: (question: string) => void; edit: (question: string) => void }) {
  const shown = store.shownTurn.value === turn.key;
  return (
    <article class={`turn ${shown ? "shown" : ""}`}>
      <header>
        <h2>{turn.question}</h2>
        <button class="quiet" onClick={() => edit(turn.question)}>{t("turn.edit")}</button>
      </header>
      {turn.status === "pending" && <Thinking since={turn.asked_at} />}
      {turn.status === "failed" && (
        <div class="card failed">
          <p>{store.failureText(turn.failure ?? "internal")}</p>
          <button onClick={() => ask(turn.question)}>{t("turn.retry")}</button>
        </div>
      )}
      {turn.answer && <AnswerCard turn={turn} answer={turn.answer} ask={ask} />}
    </article>
  );
}

function Thinking({ since }: { since: number }) {
  const [now, setNow] = useState(Date.now());
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), 500);
    return () => clearInterval(timer);
  }, []);
  return <p class="card thinking">{t("turn.thinking", { seconds: Math.max(0, Math.round((now - since) / 1000)) })}</p>;
}

function AnswerCard({ turn, answer, ask }: { turn: Turn; answer: Answer; ask: (question: string) => void }) {
  const [copied, setCopied] = useState(false);
  const showable = answer.evidence.length > 0;
  const copy = () => {
    const words = answer.abstained ? reasonText(answer.reason_code, answer.reason_arguments, answer.reason) : answer.answer;
    void navigator.clipboard?.writeText(`${turn.question}\n${words}`).then(() => setCopied(true));
  };
  return (
    <div class={`card ${answer.abstained ? "abstained" : ""}`}>
      {answer.abstained ? (
        <>
          <p class="withheld">{t("turn.withheld")}</p>
          <p>{reasonText(answer.reason_code, answer.reason_arguments, answer.reason)}</p>
          {answer.suggestions.length > 0 && (
            <div class="suggestions">
              <span>{t("turn.instead")}</span>
              {answer.suggestions.map((question) => (
                <button key={question} onClick={() => ask(question)}>{question}</button>
              ))}
            </div>
          )}
          <details>
            <summary>{t("turn.guess")}</summary>
            <Ranked answer={answer} first />
          </details>
        </>
      ) : (
        <>
          <p class="answer">{answer.answer}</p>
          <p class="facts">
            <span>{answer.confidence === null ? t("turn.no_confidence") : t("turn.confidence", { percent: percent(answer.confidence) })}</span>
            {answer.source && <span>{t(`source.${answer.source}`)}</span>}
            {answer.side && <span>{t(`side.${answer.side}`)}</span>}
          </p>
          {answer.alternatives.length > 0 && (
            <details>
              <summary>{t("turn.alternatives")}</summary>
              <Ranked answer={answer} />
            </details>
          )}
        </>
      )}
      <footer>
        {showable && <button class="quiet" onClick={() => (store.shownTurn.value = turn.key)}>{t("turn.show")}</button>}
        <button class="quiet" onClick={copy}>{copied ? t("turn.copied") : t("turn.copy")}</button>
      </footer>
    </div>
  );
}

function Ranked({ answer, first = false }: { answer: Answer; first?: boolean }) {
  const rows = [...(first ? [{ answer: answer.answer, confidence: answer.confidence ?? 0 }] : []), ...answer.alternatives];
  return (
    <ol class="ranked">
      {rows.map((row) => (
        <li key={row.answer}>
          <span>{row.answer}</span>
          <meter min={0} max={1} value={row.confidence} />
          <span>{percent(row.confidence)}</span>
        </li>
      ))}
    </ol>
  );
}

export const percent = (value: number): string => `${Math.round(100 * value)} %`;
