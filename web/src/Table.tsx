// One question over several pictures, as a table.
import type { Turn } from "./api.ts";
import { percent } from "./Conversation.tsx";
import { Dialog } from "./Dialog.tsx";
import { captionOf, t } from "./i18n/index.ts";
import { answerText } from "./reasons.ts";
import { csv, download } from "./report.ts";
import * as store from "./store.ts";

export function Table({ close }: { close: () => void }) {
  const cases = store.conversation.value?.cases ?? [];
  const several = new Set(cases.flatMap((item) => item.turns.map((turn) => turn.model ?? ""))).size > 1;
  const rowOf = (turn: Turn) => (several ? `${turn.question} · ${turn.answer?.model.name ?? turn.model ?? ""}` : turn.question);
  const questions = [...new Set(cases.flatMap((item) => item.turns.map(rowOf)))];
  const latest = (turns: Turn[], row: string) => turns.findLast((turn) => rowOf(turn) === row);
  const cell = (turn: Turn | undefined): string => {
    if (!turn) return "";
    if (!turn.answer) return turn.status === "failed" ? store.failureText(turn.failure ?? "internal") : "…";
    return turn.answer.abstained ? t("turn.withheld") : answerText(turn.answer);
  };
  const save = () => {
    const rows = questions.map((question) => [question, ...cases.map((item) => cell(latest(item.turns, question)))]);
    download("medical-vqa-table.csv", "text/csv;charset=utf-8", csv([["question", ...cases.map((item) => item.name)], ...rows]));
  };
  return (
    <Dialog title={t("table.title")} close={close} wide>
      {questions.length === 0 && <p>{t("table.empty")}</p>}
      <div class="scroll" tabIndex={0}>
        <table>
          <thead>
            <tr>
              <th>{t("table.question")}</th>
              {cases.map((item) => <th key={item.image.image_id}>{captionOf(item.name)}</th>)}
            </tr>
          </thead>
          <tbody>
            {questions.map((question) => (
              <tr key={question}>
                <th scope="row">{question}</th>
                {cases.map((item) => {
                  const turn = latest(item.turns, question);
                  const confidence = turn?.answer?.abstained ? null : turn?.answer?.confidence;
                  return <td key={item.image.image_id}>{cell(turn)} {confidence != null && <small>{percent(confidence)}</small>}</td>;
                })}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      <button onClick={save}>{t("work.csv")}</button>
    </Dialog>
  );
}
