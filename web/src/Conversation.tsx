// Questions and answers about one picture.
import { useEffect, useRef, useState } from "preact/hooks";
import type { Answer, Case, Turn } from "./api.ts";
import * as api from "./api.ts";
import { differ } from "./differ.ts";
import { language, nameOf, t } from "./i18n/index.ts";
import { answerText, isUnsure, reasonText } from "./reasons.ts";
import { copyText } from "./report.ts";
import * as store from "./store.ts";

/** The choice of all models; no model has this name. */
const ALL = "*";

export function Conversation({ item }: { item: Case }) {
  const [text, setText] = useState(() => store.draftOf(item));
  const [suggestions, setSuggestions] = useState<string[]>([]);
  const [everywhere, setEverywhere] = useState(false);
  const [wholeSeries, setWholeSeries] = useState(true);
  const [model, setModel] = useState("");
  const [together, setTogether] = useState<string[]>([]);
  const turns = useRef<HTMLDivElement>(null);
  const field = useRef<HTMLTextAreaElement>(null);
  const imageId = item.image.image_id;
  const cases = store.conversation.value?.cases ?? [];
  const otherCases = cases.filter((other) => other.image.image_id !== imageId);
  const takesMore = (store.model.value?.max_pictures ?? 1) - 1;
  const slice = store.slice.value;
  const region = store.region.value;

  useEffect(() => {
    api.suggestedQuestions(imageId, language.value).then(setSuggestions).catch(() => setSuggestions([]));
  }, [imageId, language.value]);
  useEffect(() => turns.current?.lastElementChild?.scrollIntoView({ block: "start" }), [item.turns.length]);
  // an answer is longer than the line that stood for it: as much of it is brought into view as fits
  useEffect(() => turns.current?.lastElementChild?.scrollIntoView({ block: "nearest" }), [item.turns.at(-1)?.status]);
  useEffect(() => {
    const focusField = (event: KeyboardEvent) => {
      if (event.key !== "/" || event.target instanceof HTMLTextAreaElement || event.target instanceof HTMLInputElement) return;
      field.current?.focus();
      event.preventDefault();
    };
    addEventListener("keydown", focusField);
    return () => removeEventListener("keydown", focusField);
  }, []);

  const send = (words: string) => {
    const questions = words.split("\n").map((line) => line.trim()).filter(Boolean);
    const others = together.filter((id) => otherCases.some((other) => other.image.image_id === id));
    const about = slice && (region || !wholeSeries || others.length) ? slice : null;
    const models: (string | null)[] = model === ALL ? store.modelNames.value : [model || null];
    for (const question of questions) {
      for (const name of models) {
        void store.ask(imageId, question, { region, slice: about, model: name, others });
        if (everywhere) for (const other of otherCases) void store.ask(other.image.image_id, question, { model: name });
      }
    }
    store.region.value = null;
    setText("");
  };
  const edit = (question: string) => {
    setText(question);
    field.current?.focus();
  };
  const memory = store.model.value?.max_turns ?? 0;
  const lines = text.split("\n").filter((line) => line.trim()).length;

  return (
    <section class="conversation" aria-label={t("ask.placeholder")}>
      <div class="turns" role="log" aria-live="polite" tabIndex={0} ref={turns}>
        {item.turns.map((turn) => (
          <TurnCard key={turn.key} imageId={imageId} turn={turn} ask={send} edit={edit} />
        ))}
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
        {region && (
          <p class="scope">
            {t("ask.region")} <button type="button" class="quiet" onClick={() => (store.region.value = null)}>{t("ask.region_clear")}</button>
          </p>
        )}
        <div class="field">
          <textarea
            ref={field}
            id="question"
            rows={1}
            maxLength={4000}
            aria-label={t("ask.placeholder")}
            placeholder={t("ask.placeholder")}
            value={text}
            onInput={(event) => {
              setText(event.currentTarget.value);
              store.saveDraft(imageId, event.currentTarget.value.slice(0, 1000));
            }}
            onKeyDown={(event) => {
              if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
              event.preventDefault();
              send(event.currentTarget.value);
            }}
          />
          <button class="primary" disabled={!text.trim()}>
            {t("ask.send")}
          </button>
        </div>
        <div class="options">
          {slice && (
            <label>
              {t("ask.scope")}{" "}
              <select value={wholeSeries ? "series" : "slice"} onChange={(event) => setWholeSeries(event.currentTarget.value === "series")}>
                <option value="series">{t("ask.whole_series")}</option>
                <option value="slice">{t("ask.this_slice")}</option>
              </select>
            </label>
          )}
          {store.modelNames.value.length > 1 && (
            <label>
              {t("report.model")}{" "}
              <select value={model} onChange={(event) => setModel(event.currentTarget.value)}>
                {store.modelNames.value.map((name, index) => <option key={name} value={index ? name : ""}>{name}</option>)}
                <option value={ALL}>{t("ask.all_models")}</option>
              </select>
            </label>
          )}
          {takesMore > 0 && otherCases.length > 0 && (
            <fieldset class="together">
              <legend>{t("ask.together")}</legend>
              {otherCases.map(({ image, name }) => (
                <label key={image.image_id}>
                  <input
                    type="checkbox"
                    checked={together.includes(image.image_id)}
                    disabled={!together.includes(image.image_id) && together.length >= takesMore}
                    onChange={(event) => setTogether(event.currentTarget.checked ? [...together, image.image_id] : together.filter((id) => id !== image.image_id))}
                  />{" "}
                  {name}
                </label>
              ))}
            </fieldset>
          )}
          {cases.length > 1 && (
            <label>
              <input type="checkbox" checked={everywhere} onChange={(event) => setEverywhere(event.currentTarget.checked)} /> {t("ask.all", { n: cases.length })}
            </label>
          )}
          <p class="small">{lines > 1 ? t("ask.many") : memory > 0 ? t("ask.remembers", { turns: memory }) : t("ask.memory")} {store.model.value?.has_attention_map === false && t("ask.no_map")}</p>
        </div>
      </form>
    </section>
  );
}

type CardProps = { imageId: string; turn: Turn; ask: (question: string) => void; edit: (question: string) => void };

function TurnCard({ imageId, turn, ask, edit }: CardProps) {
  const shown = store.shownTurn.value === turn.key;
  return (
    <article class={`turn ${shown ? "shown" : ""}`} data-key={turn.key}>
      <header>
        <h2>{turn.question}</h2>
        <button class="quiet" onClick={() => edit(turn.question)}>{t("turn.edit")}</button>
      </header>
      {(turn.other_image_ids?.length ?? 0) > 0 && <p class="part">{t("turn.together", { names: namesOf(turn.other_image_ids!) })}</p>}
      {turn.status === "pending" && <Thinking imageId={imageId} turn={turn} />}
      {turn.status === "failed" && (
        <div class="card failed">
          <p>{store.failureText(turn.failure ?? "internal", turn.failure_message ?? "")}</p>
          {turn.failure === "engine_refused" && <p class="small" lang="en">{turn.failure_message}</p>}
          <button onClick={() => ask(turn.question)}>{t("turn.retry")}</button>
        </div>
      )}
      {turn.answer && turn.region_answer && <p class="part">{t("turn.whole")}</p>}
      {turn.answer && <AnswerCard imageId={imageId} turn={turn} answer={turn.answer} ask={ask} />}
      {turn.answer && turn.region_answer && (
        <>
          <p class="part">{t("turn.part")}</p>
          <AnswerCard imageId={imageId} turn={turn} answer={turn.region_answer} ask={ask} part />
          <p class="small">
            {t("turn.part_note")} {differ(turn.answer, turn.region_answer) && t("turn.part_differs")}
          </p>
        </>
      )}
    </article>
  );
}

const namesOf = (ids: string[]): string =>
  ids.map((id) => store.conversation.value?.cases.find((item) => item.image.image_id === id)?.name ?? t("turn.gone")).join(", ");

function Thinking({ imageId, turn }: { imageId: string; turn: Turn }) {
  const [now, setNow] = useState(Date.now());
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), 500);
    return () => clearInterval(timer);
  }, []);
  const seconds = Math.max(0, Math.round((now - turn.asked_at) / 1000));
  return (
    <div class="card thinking">
      {turn.text && <p class="answer unfinished">{turn.text}</p>}
      <p>{t("turn.thinking", { seconds })}</p>
      {seconds > 1 && <button class="quiet" onClick={() => void store.cancel(imageId, turn)}>{t("turn.cancel")}</button>}
    </div>
  );
}

type AnswerProps = { imageId: string; turn: Turn; answer: Answer; ask: (question: string) => void; part?: boolean };

function AnswerCard({ imageId, turn, answer, ask, part = false }: AnswerProps) {
  const [copied, setCopied] = useState(false);
  const showable = !part && answer.evidence.length > 0;
  const slice = store.slice.value;
  const inView = answer.frame == null || (slice?.frame === answer.frame && slice.plane === (answer.plane ?? slice.plane));
  const shown = store.shownTurn.value === turn.key && inView;
  const copy = () => {
    const text = `${turn.question}\n${answer.abstained ? reasonText(answer) : answerText(answer)}\n${t("safety")}`;
    void copyText(text).then((worked) => (worked ? setCopied(true) : store.notify(t("turn.not_copied"), true)));
  };
  return (
    <div class={`card ${answer.abstained ? "abstained" : ""}`}>
      {answer.abstained ? (
        <>
          <p class="withheld">{t(isUnsure(answer) ? "turn.unsure" : "turn.withheld")}</p>
          <p class="reason">{reasonText(answer)}</p>
          {answer.suggestions.length > 0 && (
            <div class="suggestions">
              <span>{t("turn.instead")}</span>
              {answer.suggestions.map((question) => (
                <button key={question} onClick={() => ask(question)}>{question}</button>
              ))}
            </div>
          )}
          {answer.answer && (
            <details>
              <summary>{t(answer.reason_code === "model_declined" ? "turn.written" : "turn.guess")}</summary>
              <Ranked answer={answer} first />
            </details>
          )}
        </>
      ) : (
        <>
          <p class="answer">{answer.answer}</p>
          {answer.cut_off && <p class="reason">{t("turn.cut_off")}</p>}
          <p class="facts">
            <span>{answer.confidence === null ? t("turn.no_confidence") : t(answer.confidence_basis === "agreement" ? "turn.agreement" : "turn.confidence", { percent: percent(answer.confidence) })}</span>
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
      {(answer.slices?.length ?? 0) > 0 && <Slices answer={answer} />}
      <footer>
        {showable && <button class="quiet" aria-pressed={shown} onClick={() => showEvidence(turn.key, answer)}>{shown ? t("turn.shown") : inView ? t("turn.show") : t("turn.show_on", { number: answer.frame! + 1 })}</button>}
        <button class="quiet" onClick={copy}>{copied ? t("turn.copied") : t("turn.copy")}</button>
        <span class="model">{answer.model.name}</span>
      </footer>
      {!part && !answer.abstained && store.model.value?.collects_ratings && <Rate imageId={imageId} turn={turn} />}
    </div>
  );
}

let slicesWanted = 0;

function goToSlice(frame: number, plane: api.Plane): void {
  store.wantedSlice.value = { frame, plane, number: ++slicesWanted };
}

function showEvidence(key: string, answer: Answer): void {
  store.shownTurn.value = key;
  if (answer.frame != null && answer.plane) goToSlice(answer.frame, answer.plane);
}

function Slices({ answer }: { answer: Answer }) {
  return (
    <details>
      <summary>{t("turn.slices")}</summary>
      {answer.evidence.length > 0 && answer.frame != null && <p class="small">{t("turn.on_slice", { number: answer.frame + 1 })}</p>}
      <ul class="slice-list">
        {answer.slices!.map((slice) => (
          <li key={`${slice.plane} ${slice.frame}`}>
            <button class="quiet" aria-label={t("turn.go_to", { number: slice.frame + 1 })} onClick={() => goToSlice(slice.frame, slice.plane)}>{slice.frame + 1}</button>
            <span>{slice.answer}</span>
            <span>{slice.confidence === null ? "" : percent(slice.confidence)}</span>
          </li>
        ))}
      </ul>
    </details>
  );
}

function Rate({ imageId, turn }: { imageId: string; turn: Turn }) {
  const [wrong, setWrong] = useState(false);
  const [correction, setCorrection] = useState(turn.rating?.correction ?? "");
  const [keep, setKeep] = useState(false);
  const rating = turn.rating;
  return (
    <div class="rate" role="group" aria-label={t("rate.title")}>
      <span>{t("rate.title")}</span>
      <button class="quiet" aria-pressed={rating?.correct === true} onClick={() => (setWrong(false), void store.rate(imageId, turn, { correct: true, correction: "" }, keep))}>{t("rate.right")}</button>
      <button class="quiet" aria-pressed={wrong || rating?.correct === false} onClick={() => setWrong(!wrong)}>{t("rate.wrong")}</button>
      {wrong && (
        <form
          onSubmit={(event) => {
            event.preventDefault();
            setWrong(false);
            void store.rate(imageId, turn, { correct: false, correction: correction.trim() }, keep);
          }}
        >
          <input aria-label={t("rate.correction")} placeholder={t("rate.correction")} maxLength={1000} value={correction} onInput={(event) => setCorrection(event.currentTarget.value)} />
          <button>{t("rate.save")}</button>
        </form>
      )}
      <label class="small">
        <input type="checkbox" checked={keep} onChange={(event) => setKeep(event.currentTarget.checked)} /> {t("rate.keep")}
      </label>
    </div>
  );
}

function Ranked({ answer, first = false }: { answer: Answer; first?: boolean }) {
  const rows = [...(first ? [{ answer: answer.answer, confidence: answer.confidence ?? 0 }] : []), ...answer.alternatives];
  return (
    <ol class="ranked">
      {rows.map((row) => (
        <li key={row.answer}>
          <span>{nameOf(row.answer)}</span>
          <meter min={0} max={1} value={row.confidence} aria-label={t("report.confidence")} />
          <span>{percent(row.confidence)}</span>
        </li>
      ))}
    </ol>
  );
}

export const percent = (value: number): string => (value > 0 && value < 0.01 ? "< 1 %" : `${Math.round(100 * value)} %`);
