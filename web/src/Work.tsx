// A folder of pictures and a list of questions: as a batch, or corrected by a reader.
import { signal } from "@preact/signals";
import { useRef, useState } from "preact/hooks";
import type { Answer } from "./api.ts";
import { askOnce } from "./api.ts";
import { Dialog } from "./Dialog.tsx";
import { percent } from "./Conversation.tsx";
import { nameOf, t } from "./i18n/index.ts";
import { agreement, normalized } from "./kappa.ts";
import { reasonText } from "./reasons.ts";
import { csv, download } from "./report.ts";
import * as store from "./store.ts";

type Row = { picture: string; question: string; answer: Answer | null; failure: string; correct: string };
type Line = { id: string; image: string; question: string; answer: string; reader: string };

export const workOpen = signal(false);
const rows = signal<Row[]>([]);

export function Work() {
  const [files, setFiles] = useState<File[]>([]);
  const [questions, setQuestions] = useState("");
  const [done, setDone] = useState<number | null>(null);
  const [running, setRunning] = useState(false);
  const [annotating, setAnnotating] = useState(false);
  const [reader, setReader] = useState("");
  const [kappa, setKappa] = useState("");
  const stopped = useRef(false);
  const folder = useRef<HTMLInputElement>(null);
  const other = useRef<HTMLInputElement>(null);
  const texts = questions.split("\n").map((line) => line.trim()).filter(Boolean);

  const run = async () => {
    stopped.current = false;
    rows.value = [];
    setDone(0);
    setRunning(true);
    for (const [index, file] of files.entries()) {
      if (stopped.current) break;
      const picture = pathOf(file);
      try {
        const answers = await askOnce(file, file.name, texts);
        rows.value = [...rows.value, ...answers.map((answer) => ({ picture, question: answer.question, answer, failure: "", correct: answer.abstained ? "" : answer.answer }))];
      } catch (error) {
        rows.value = [...rows.value, { picture, question: texts.join("; "), answer: null, failure: store.failureOf(error), correct: "" }];
      }
      setDone(index + 1);
    }
    setRunning(false);
  };
  const correct = (index: number, value: string) => (rows.value = rows.value.map((row, i) => (i === index ? { ...row, correct: value } : row)));
  const lines = (): Line[] =>
    rows.value
      .filter((row) => row.answer && row.correct.trim())
      .map((row, index) => ({ id: `${reader || "reader"}-${index}`, image: row.picture, question: row.question, answer: row.correct.trim(), reader: reader || "reader" }));
  const compare = async (file: File) => {
    const theirs = linesOf(await file.text());
    if (!theirs) return setKappa(t("work.not_lines", { name: file.name }));
    const answers = new Map(theirs.map((line) => [`${line.image}\n${line.question}`, line.answer]));
    const pairs = lines().flatMap((line) => {
      const theirAnswer = answers.get(`${line.image}\n${line.question}`);
      return theirAnswer === undefined ? [] : [[normalized(line.answer), normalized(theirAnswer)] as const];
    });
    if (!pairs.length) return setKappa(t("work.no_common"));
    const result = agreement(pairs);
    const values = { n: result.n, same: result.same, a: reader || "reader", b: theirs[0]?.reader ?? file.name };
    setKappa(result.kappa === null ? t("work.kappa_undefined", values) : t("work.kappa", { ...values, kappa: result.kappa.toFixed(2), low: result.low.toFixed(2), high: result.high.toFixed(2) }));
  };

  return (
    <Dialog title={t("work.title")} close={() => ((stopped.current = true), (workOpen.value = false))} wide>
      <p>{t("work.intro")}</p>
      <div class="line">
        <button onClick={() => folder.current!.click()}>{t("start.folder")}</button>
        <span>{files.length > 0 && t("work.files", { n: files.length })}</span>
        <input
          ref={folder}
          type="file"
          hidden
          multiple
          data-testid="folder"
          {...{ webkitdirectory: true }}
          onChange={(event) => setFiles([...(event.currentTarget.files ?? [])].filter((file) => !file.name.startsWith(".")))}
        />
        <label>
          <input type="checkbox" checked={annotating} onChange={(event) => setAnnotating(event.currentTarget.checked)} /> {t("work.annotate")}
        </label>
      </div>
      <textarea aria-label={t("work.questions")} placeholder={t("work.questions")} rows={3} value={questions} onInput={(event) => setQuestions(event.currentTarget.value)} />
      <div class="line">
        <button class="primary" disabled={running || !files.length || !texts.length} onClick={() => void run()}>{t("work.run")}</button>
        {running && <button onClick={() => (stopped.current = true)}>{t("work.stop")}</button>}
        {done !== null && <progress max={files.length} value={done} aria-label={t("work.progress", { done, all: files.length })} />}
        {done !== null && <span role="status">{t("work.progress", { done, all: files.length })}</span>}
      </div>
      {rows.value.length > 0 && (
        <>
          <div class="scroll" tabIndex={0}>
            <table>
              <thead>
                <tr>
                  <th>{t("work.picture")}</th>
                  <th>{t("table.question")}</th>
                  <th>{t("work.answer")}</th>
                  <th>{t("report.confidence")}</th>
                  {annotating && <th>{t("work.correct")}</th>}
                </tr>
              </thead>
              <tbody>
                {rows.value.map((row, index) => (
                  <tr key={index}>
                    <td>{row.picture}</td>
                    <td>{row.question}</td>
                    <td>{row.answer ? (row.answer.abstained ? `${t("turn.withheld")}: ${reasonText(row.answer)}` : nameOf(row.answer.answer)) : row.failure}</td>
                    <td>{row.answer?.confidence != null && !row.answer.abstained ? percent(row.answer.confidence) : ""}</td>
                    {annotating && (
                      <td>
                        {row.answer && <input aria-label={`${t("work.correct")}: ${row.picture}, ${row.question}`} value={row.correct} onInput={(event) => correct(index, event.currentTarget.value)} />}
                      </td>
                    )}
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
          <div class="line">
            <button onClick={() => download("medical-vqa-batch.csv", "text/csv;charset=utf-8", tableOf(rows.value))}>{t("work.csv")}</button>
            {annotating && (
              <>
                <input aria-label={t("work.reader")} placeholder={t("work.reader")} value={reader} onInput={(event) => setReader(event.currentTarget.value)} />
                <button onClick={() => download("questions.jsonl", "application/jsonl", lines().map((line) => `${JSON.stringify(line)}\n`).join(""))}>{t("work.export")}</button>
                <button onClick={() => other.current!.click()}>{t("work.compare")}</button>
                <input
                  ref={other}
                  type="file"
                  hidden
                  accept=".jsonl"
                  data-testid="other-reader"
                  onChange={(event) => {
                    const file = event.currentTarget.files?.[0];
                    event.currentTarget.value = ""; // the same file may be chosen again
                    if (file) void compare(file);
                  }}
                />
              </>
            )}
          </div>
          {annotating && <p class="small">{t("work.export_note")}</p>}
          {kappa && <p role="status">{kappa}</p>}
        </>
      )}
    </Dialog>
  );
}

/** The rows of a reader's exported file; null where it is no such file. */
function linesOf(text: string): Line[] | null {
  try {
    const lines: Line[] = text.split("\n").filter((line) => line.trim()).map((line) => JSON.parse(line));
    return lines.every((line) => [line?.image, line?.question, line?.answer].every((value) => typeof value === "string")) ? lines : null;
  } catch {
    return null;
  }
}

/** The path inside the folder that was chosen. */
function pathOf(file: File): string {
  const path = file.webkitRelativePath;
  return path ? path.slice(path.indexOf("/") + 1) : file.name;
}

function tableOf(table: Row[]): string {
  const head = ["picture", "question", "answer", "confidence", "abstained", "cut_off", "reason_code", "model", "failure"];
  return csv([head, ...table.map((row) => [row.picture, row.question, row.answer?.answer, row.answer?.confidence, row.answer?.abstained, row.answer?.cut_off, row.answer?.reason_code, row.answer?.model.id, row.failure])]);
}
