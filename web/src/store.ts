// What the page shows: the conversation as the server has it, and what only this browser knows.
import { computed, signal } from "@preact/signals";
import * as api from "./api.ts";
import { hasText, t } from "./i18n/index.ts";

export const conversation = signal<api.Conversation | null>(null);
export const model = signal<api.ModelInfo | null>(null);
export const examples = signal<api.Examples | null>(null);
export const currentId = signal<string | null>(null);
export const online = signal(true);
export const ended = signal(false);
export const needsKey = signal(false);
/** Names of the files that are being uploaded. */
export const uploading = signal<string[]>([]);
/** Messages at the foot of the page, newest last. */
export const notices = signal<{ id: number; text: string; error: boolean }[]>([]);
/** The turn whose evidence the viewer shows. */
export const shownTurn = signal<string | null>(null);

export const current = computed(() => conversation.value?.cases.find((c) => c.image.image_id === currentId.value) ?? null);

let noticeNumber = 0;

export function notify(text: string, error = false): void {
  const id = ++noticeNumber;
  notices.value = [...notices.value, { id, text, error }];
  setTimeout(() => (notices.value = notices.value.filter((notice) => notice.id !== id)), error ? 15_000 : 5_000);
}

/** What went wrong, and what to do, in the page's language. */
export function failureText(code: string, message = ""): string {
  const key = `failure.${code}`;
  const megabytes = Math.round((model.value?.limits.max_upload_bytes ?? 0) / 2 ** 20);
  return hasText(key) ? t(key, { message, megabytes }) : message || t("failure.internal");
}

const failureOf = (error: unknown): string => (error instanceof api.Failure ? failureText(error.code, error.message) : String(error));

let draftTimer = 0;
let following: AbortController | null = null;

export async function start(): Promise<void> {
  try {
    [model.value, examples.value] = await Promise.all([api.model(), api.examples()]);
  } catch (error) {
    if (error instanceof api.Failure && error.code === "unauthorized") needsKey.value = true;
    else {
      online.value = false;
      setTimeout(start, 1500);
    }
    return;
  }
  online.value = true;
  const id = location.hash.slice(1);
  if (!id) return;
  try {
    show(await api.readConversation(id));
    currentId.value = conversation.value?.cases.at(-1)?.image.image_id ?? null;
    followConversation(id);
  } catch (error) {
    if (error instanceof api.Failure && error.code === "unknown_conversation") ended.value = true;
    else setTimeout(start, 1500);
  }
}

export async function useKey(key: string): Promise<void> {
  api.useKey(key);
  needsKey.value = false;
  await start();
}

export function beginAgain(): void {
  following?.abort();
  history.replaceState(null, "", location.pathname);
  ended.value = false;
  conversation.value = null;
  currentId.value = null;
}

/** Takes the server's version over, with the questions that it does not have yet. */
function show(next: api.Conversation): void {
  const now = conversation.value;
  if (now?.id !== next.id) {
    conversation.value = next;
    return;
  }
  if (now.version > next.version) return;
  const unsent = (item: api.Case) => {
    const local = now.cases.find((c) => c.image.image_id === item.image.image_id)?.turns ?? [];
    const keys = new Set(item.turns.map((turn) => turn.key));
    return local.filter((turn) => !keys.has(turn.key));
  };
  conversation.value = { ...next, cases: next.cases.map((item) => ({ ...item, turns: [...item.turns, ...unsent(item)] })) };
}

/** A random key; `crypto.randomUUID` exists on secure origins alone. */
function randomKey(): string {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

function followConversation(id: string): void {
  following?.abort();
  following = new AbortController();
  api.follow(id, show, (alive) => (online.value = alive), following.signal).catch(() => (ended.value = true));
}

async function openConversation(): Promise<string> {
  if (conversation.value) return conversation.value.id;
  const created = await api.createConversation();
  conversation.value = created;
  history.replaceState(null, "", `#${created.id}`);
  followConversation(created.id);
  return created.id;
}

/** Uploads files one after the other; each failure is told by name, and the others go on. */
export async function addFiles(files: { file: Blob; name: string }[]): Promise<void> {
  if (!files.length) return;
  uploading.value = [...uploading.value, ...files.map(({ name }) => name)];
  const before = currentId.value;
  for (const { file, name } of files) {
    try {
      const limit = model.value?.limits.max_upload_bytes;
      if (limit && file.size > limit) throw new api.Failure("too_large", "");
      const added = await api.addImage(await openConversation(), file, name);
      const now = conversation.value;
      if (now && !now.cases.some((c) => c.image.image_id === added.image.image_id)) {
        conversation.value = { ...now, cases: [...now.cases, added] };
      }
      if (currentId.value === before || files.length === 1) currentId.value = added.image.image_id;
    } catch (error) {
      notify(t("cases.upload_failed", { name, reason: failureOf(error) }), true);
    }
    const index = uploading.value.indexOf(name);
    uploading.value = uploading.value.filter((_, i) => i !== index);
  }
}

export async function openExample(path: string, caption: string): Promise<void> {
  try {
    const response = await fetch(path);
    await addFiles([{ file: await response.blob(), name: caption }]);
  } catch (error) {
    notify(failureOf(error), true);
  }
}

/** Asks at once; the turn is shown before the server has confirmed it. */
export async function ask(imageId: string, question: string): Promise<void> {
  const now = conversation.value;
  const text = question.trim();
  clearTimeout(draftTimer);
  if (!now || !text) return;
  const turn: api.Turn = { key: randomKey(), question: text, status: "pending", answer: null, failure: null, asked_at: Date.now() };
  conversation.value = { ...now, cases: now.cases.map((c) => (c.image.image_id === imageId ? { ...c, turns: [...c.turns, turn], draft: "" } : c)) };
  shownTurn.value = turn.key;
  for (let attempt = 0; ; attempt++) {
    try {
      await api.askQuestion(now.id, imageId, turn.key, text);
      return;
    } catch (error) {
      const code = error instanceof api.Failure ? error.code : "internal";
      if (code === "unknown_conversation") ended.value = true;
      if (code === "unreachable" && attempt < 40) {
        online.value = false;
        await new Promise((resolve) => setTimeout(resolve, 1500)); // the same key: it is asked once
        continue;
      }
      replaceTurn(imageId, { ...turn, status: "failed", failure: code });
      return;
    }
  }
}

function replaceTurn(imageId: string, turn: api.Turn): void {
  const now = conversation.value;
  if (!now) return;
  const turns = (c: api.Case) => c.turns.map((t) => (t.key === turn.key ? turn : t));
  conversation.value = { ...now, cases: now.cases.map((c) => (c.image.image_id === imageId ? { ...c, turns: turns(c) } : c)) };
}

export async function removeCase(item: api.Case): Promise<void> {
  const now = conversation.value;
  if (!now) return;
  try {
    await api.deleteImage(now.id, item.image.image_id);
  } catch (error) {
    notify(t("cases.delete_failed", { name: item.name, reason: failureOf(error) }), true);
    return;
  }
  const cases = (conversation.value ?? now).cases.filter((c) => c.image.image_id !== item.image.image_id);
  conversation.value = { ...(conversation.value ?? now), cases };
  if (currentId.value === item.image.image_id) currentId.value = cases.at(-1)?.image.image_id ?? null;
  notify(t("cases.deleted", { name: item.name }));
}

export function saveDraft(imageId: string, draft: string): void {
  clearTimeout(draftTimer);
  const id = conversation.value?.id;
  if (id) draftTimer = window.setTimeout(() => void api.saveDraft(id, imageId, draft).catch(() => undefined), 400);
}
