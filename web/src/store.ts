// What the page shows: the conversation as the server has it, and what only this browser knows.
import { computed, signal } from "@preact/signals";
import * as api from "./api.ts";
import { hasText, t } from "./i18n/index.ts";

export const conversation = signal<api.Conversation | null>(null);
export const model = signal<api.ModelInfo | null>(null);
/** The models that may be asked, where there are several. */
export const modelNames = signal<string[]>([]);
export const examples = signal<api.Examples | null>(null);
export const currentId = signal<string | null>(null);
/** The picture next to the current one, such as the prior examination. */
export const secondId = signal<string | null>(null);
export const online = signal(true);
export const ended = signal(false);
export const needsKey = signal(false);
/** Names of the files that are being uploaded. */
export const uploading = signal<string[]>([]);
/** Messages at the foot of the page, newest last. */
export const notices = signal<{ id: number; text: string; error: boolean }[]>([]);
/** The turn whose evidence the viewer shows. */
export const shownTurn = signal<string | null>(null);
/** The part of the current picture that the next question is about. */
export const region = signal<api.Region | null>(null);
/** The slice that the viewer shows of the current picture; null where there is only one. */
export const slice = signal<api.Slice | null>(null);
/** A slice that the conversation asks the viewer to show. */
export const wantedSlice = signal<(api.Slice & { number: number }) | null>(null);
/** The window that the viewer shows the current picture in. */
export const shownWindow = signal<{ center: number; width: number } | null>(null);

export const current = computed(() => conversation.value?.cases.find((c) => c.image.image_id === currentId.value) ?? null);
export const second = computed(() => conversation.value?.cases.find((c) => c.image.image_id === secondId.value) ?? null);

const MOST_FILES = 100;
const RETRY = 1500; // milliseconds
let noticeNumber = 0;

export function notify(text: string, error = false): void {
  const id = ++noticeNumber;
  notices.value = [...notices.value, { id, text, error }];
  setTimeout(() => dismiss(id), error ? 15_000 : 5_000);
}

export function dismiss(id: number): void {
  notices.value = notices.value.filter((notice) => notice.id !== id);
}

/** What went wrong, and what to do, in the page's language. */
export function failureText(code: string, message = ""): string {
  const key = `failure.${code}`;
  const megabytes = Math.round((model.value?.limits.max_upload_bytes ?? 0) / 2 ** 20);
  return hasText(key) ? t(key, { message, megabytes }) : message || t("failure.internal");
}

export const failureOf = (error: unknown): string => (error instanceof api.Failure ? failureText(error.code, error.message) : String(error));

let draftTimer = 0;
/** What was typed about each picture since the page was opened: the server's version of it may be older. */
const drafts = new Map<string, string>();
/** The last request that keeps a draft. */
let draftSaving: Promise<void> | null = null;
let following: AbortController | null = null;

export async function start(): Promise<void> {
  try {
    [model.value, examples.value] = await Promise.all([api.model(), api.examples()]);
  } catch (error) {
    if (error instanceof api.Failure && error.code === "unauthorized") needsKey.value = true;
    else {
      online.value = false;
      setTimeout(start, RETRY);
    }
    return;
  }
  online.value = true;
  void api.modelNames().then((names) => (modelNames.value = names));
  if (location.hash) await openFromAddress(); // else a picture may have been opened meanwhile
  await openStudy();
}

/** Opens the study that another viewer's link names (?study=UID, with &series=UID for one of its series), once. */
async function openStudy(): Promise<void> {
  const link = new URLSearchParams(location.search);
  const study = link.get("study");
  if (!study) return;
  history.replaceState(null, "", `${location.pathname}${location.hash}`); // the UID does not stay in the address
  const name = t("study.name");
  uploading.value = [...uploading.value, name];
  try {
    const { cases, leftOut } = await api.addStudy(await openConversation(), study, link.get("series"), name);
    if (leftOut) notify(t("cases.left_out", { n: leftOut }), true);
    addCases(cases);
    if (cases.length) choose(cases[0]!.image.image_id);
  } catch (error) {
    notify(t("cases.upload_failed", { name, reason: failureOf(error) }), true);
  }
  const index = uploading.value.indexOf(name);
  uploading.value = uploading.value.filter((_, i) => i !== index);
}

/** Opens the conversation that the address names: at the start, and after "back". */
export async function openFromAddress(): Promise<void> {
  const [id, imageId] = location.hash.slice(1).split("/");
  if (!id) {
    leave();
    return;
  }
  if (conversation.value?.id === id) {
    if (imageId) currentId.value = imageId;
    return;
  }
  try {
    show(await api.readConversation(id));
    const cases = conversation.value?.cases ?? [];
    currentId.value = (cases.find((c) => c.image.image_id === imageId) ?? cases.at(-1))?.image.image_id ?? null;
    ended.value = false;
    followConversation(id);
  } catch (error) {
    if (error instanceof api.Failure && error.code === "unknown_conversation") ended.value = true;
    else setTimeout(start, RETRY);
  }
}

export async function useKey(key: string): Promise<void> {
  api.useKey(key);
  needsKey.value = false;
  await start();
  if (needsKey.value) notify(failureText("unauthorized"), true);
}

function leave(): void {
  following?.abort();
  ended.value = false;
  conversation.value = null;
  currentId.value = null;
  secondId.value = null;
}

export function beginAgain(): void {
  history.pushState(null, "", location.pathname);
  leave();
}

export function choose(imageId: string | null): void {
  if (imageId === currentId.value) return;
  currentId.value = imageId;
  region.value = null;
  shownTurn.value = null;
  if (secondId.value === imageId) secondId.value = null;
  const id = conversation.value?.id;
  if (id) history.replaceState(null, "", imageId ? `#${id}/${imageId}` : `#${id}`);
}

/** Pictures that the server has accepted and that no version of the conversation from it holds yet. */
const unconfirmed = new Set<string>();

/** Takes the server's version over, with the pictures and questions that it does not have yet: it may be older than they are. */
function show(next: api.Conversation): void {
  const now = conversation.value;
  if (now?.id !== next.id) {
    unconfirmed.clear();
    conversation.value = next;
    return;
  }
  if (now.version > next.version) return;
  for (const item of next.cases) unconfirmed.delete(item.image.image_id);
  const newer = now.cases.filter((c) => unconfirmed.has(c.image.image_id));
  const unsent = (item: api.Case) => {
    const local = now.cases.find((c) => c.image.image_id === item.image.image_id)?.turns ?? [];
    const keys = new Set(item.turns.map((turn) => turn.key));
    return local.filter((turn) => !keys.has(turn.key));
  };
  const cases = [...next.cases.map((item) => ({ ...item, turns: [...item.turns, ...unsent(item)] })), ...newer];
  conversation.value = { ...next, cases };
  if (currentId.value && !cases.some((c) => c.image.image_id === currentId.value)) {
    const gone = now.cases.find((c) => c.image.image_id === currentId.value);
    if (gone?.expires_at && gone.expires_at <= Date.now()) notify(t("cases.expired", { name: gone.name }));
    choose(cases.at(-1)?.image.image_id ?? null);
  }
}

/** Drops pictures whose time on the server is over, so that no copy of them outlives it here. */
export function dropExpired(): void {
  const now = conversation.value;
  if (!now) return;
  const expired = now.cases.filter((c) => c.expires_at && c.expires_at <= Date.now());
  if (!expired.length) return;
  for (const item of expired) unconfirmed.delete(item.image.image_id);
  const cases = now.cases.filter((c) => !expired.includes(c));
  conversation.value = { ...now, cases };
  for (const item of expired) notify(t("cases.expired", { name: item.name }));
  if (expired.some((c) => c.image.image_id === currentId.value)) choose(cases.at(-1)?.image.image_id ?? null);
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
  history.pushState(null, "", `#${created.id}`);
  followConversation(created.id);
  return created.id;
}

type NamedFile = { file: Blob; name: string };

const isArchive = ({ name }: NamedFile): boolean => /\.(zip|nii|nii\.gz)$/i.test(name);

/** Whether a file begins as DICOM does. */
async function isDicom({ file, name }: NamedFile): Promise<boolean> {
  return /\.(dcm|ima)$/i.test(name) || (await file.slice(128, 132).text()) === "DICM";
}

function addCases(added: api.Case[]): void {
  const now = conversation.value;
  if (!now) return;
  const known = new Set(now.cases.map((c) => c.image.image_id));
  const missing = added.filter((c) => !known.has(c.image.image_id));
  for (const item of missing) unconfirmed.add(item.image.image_id);
  conversation.value = { ...now, cases: [...now.cases, ...missing] };
}

/** Uploads files one after the other; each failure is reported by name, and the others follow. */
export async function addFiles(files: NamedFile[]): Promise<void> {
  if (!files.length) return;
  const dicom = files.length > 1 ? await Promise.all(files.map(isDicom)) : [];
  const slices = files.filter((_, index) => dicom[index]);
  const groups: NamedFile[][] = slices.length > 1 ? [slices, ...files.filter((_, index) => !dicom[index]).map((one) => [one])] : files.map((one) => [one]);
  if (groups.length > MOST_FILES) notify(t("cases.limit", { n: MOST_FILES, all: groups.length }), true);
  const taken = groups.slice(0, MOST_FILES);
  uploading.value = [...uploading.value, ...taken.map((group) => group[0]!.name)];
  let chosen = false;
  for (const group of taken) {
    const { name } = group[0]!;
    try {
      const added = await addGroup(group);
      addCases(added);
      if (added.length && !chosen) choose(added[0]!.image.image_id);
      chosen ||= added.length > 0;
    } catch (error) {
      if (error instanceof api.Failure && error.code === "unknown_conversation") ended.value = true;
      notify(t("cases.upload_failed", { name, reason: failureOf(error) }), true);
    }
    const index = uploading.value.indexOf(name);
    uploading.value = uploading.value.filter((_, i) => i !== index);
  }
}

async function addGroup(group: NamedFile[]): Promise<api.Case[]> {
  const [{ file, name }] = group as [NamedFile];
  const limit = model.value?.limits.max_upload_bytes;
  if (group.length > 1 || isArchive(group[0]!)) {
    try {
      const { cases, leftOut } = await api.addSeries(await openConversation(), group, name);
      if (leftOut) notify(t("cases.left_out", { n: leftOut }), true);
      return cases;
    } catch (error) {
      const unsupported = error instanceof api.Failure && ["not_found", "method_not_allowed"].includes(error.code);
      if (!unsupported) throw error;
      if (group.length > 1) {
        const cases: api.Case[] = [];
        for (const one of group) cases.push(await api.addImage(await openConversation(), one.file, one.name));
        return cases;
      }
    }
  }
  if (limit && file.size > limit) throw new api.Failure("too_large", "");
  const id = await openConversation();
  const single = await api.addImage(id, file, name);
  if (single.image.frames <= 1) return [single];
  try {
    const { cases } = await api.addSeries(id, group, name); // a file of many slices
    await api.deleteImage(id, single.image.image_id);
    return cases.length ? cases : [single];
  } catch {
    return [single];
  }
}

export async function openExample(path: string, caption: string): Promise<void> {
  try {
    await addFiles([{ file: await api.exampleBlob(path), name: caption }]);
  } catch (error) {
    notify(failureOf(error), true);
  }
}

const sleep = (milliseconds: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** Asks at once; the turn is shown before the server has confirmed it. */
export async function ask(imageId: string, question: string, options: { region?: api.Region | null; slice?: api.Slice | null; model?: string | null; others?: string[] } = {}): Promise<void> {
  const now = conversation.value;
  const text = question.trim();
  clearTimeout(draftTimer);
  if (!now || !text) return;
  const saving = draftSaving;
  drafts.set(imageId, "");
  const turn: api.Turn = { key: randomKey(), question: text, status: "pending", answer: null, failure: null, asked_at: Date.now(), region: options.region ?? null, model: options.model ?? null, other_image_ids: options.others ?? [], window: options.slice ? windowText() : null };
  conversation.value = { ...now, cases: now.cases.map((c) => (c.image.image_id === imageId ? { ...c, turns: [...c.turns, turn], draft: "" } : c)) };
  if (imageId === currentId.value) shownTurn.value = turn.key;
  for (;;) {
    try {
      await api.askQuestion(now.id, imageId, turn, options.slice ?? null);
      if (saving) void saving.then(() => keepDraft(now.id, imageId)); // it may have arrived after the question
      return;
    } catch (error) {
      const code = error instanceof api.Failure ? error.code : "internal";
      if (code === "unknown_conversation") ended.value = true;
      if (code === "unreachable") {
        online.value = false;
        await sleep(RETRY); // the same key: it is asked once
        if (conversation.value?.id === now.id) continue;
        return;
      }
      replaceTurn(imageId, { ...turn, status: "failed", failure: code, failure_message: error instanceof api.Failure ? error.message : null });
      return;
    }
  }
}

/** The window that the viewer shows, as a question names it. */
function windowText(): string | null {
  const window = shownWindow.value;
  return window ? `${Math.round(window.center)},${Math.max(1, Math.round(window.width))}` : null;
}

function replaceTurn(imageId: string, turn: api.Turn): void {
  const now = conversation.value;
  if (!now) return;
  const turns = (c: api.Case) => c.turns.map((t) => (t.key === turn.key ? turn : t));
  conversation.value = { ...now, cases: now.cases.map((c) => (c.image.image_id === imageId ? { ...c, turns: turns(c) } : c)) };
}

export async function cancel(imageId: string, turn: api.Turn): Promise<void> {
  const id = conversation.value?.id;
  if (!id) return;
  replaceTurn(imageId, { ...turn, status: "failed", failure: "canceled" });
  await api.cancelQuestion(id, imageId, turn.key).catch((error) => notify(failureOf(error), true));
}

export async function rate(imageId: string, turn: api.Turn, rating: api.Rating, keepPicture: boolean): Promise<void> {
  const id = conversation.value?.id;
  if (!id) return;
  try {
    await api.rateAnswer(id, imageId, turn.key, rating, keepPicture);
    notify(t("rate.saved"));
  } catch (error) {
    notify(failureOf(error), true);
  }
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
  unconfirmed.delete(item.image.image_id);
  const latest = conversation.value ?? now;
  const cases = latest.cases.filter((c) => c.image.image_id !== item.image.image_id);
  conversation.value = { ...latest, cases };
  if (secondId.value === item.image.image_id) secondId.value = null;
  if (currentId.value === item.image.image_id) choose(cases.at(-1)?.image.image_id ?? null);
  notify(t("cases.deleted", { name: item.name }));
}

export const draftOf = (item: api.Case): string => drafts.get(item.image.image_id) ?? item.draft;

export function saveDraft(imageId: string, draft: string): void {
  clearTimeout(draftTimer);
  const now = conversation.value;
  if (!now) return;
  drafts.set(imageId, draft);
  draftTimer = window.setTimeout(() => keepDraft(now.id, imageId), 250);
}

function keepDraft(id: string, imageId: string): void {
  const saving = api.saveDraft(id, imageId, drafts.get(imageId) ?? "").catch(() => undefined);
  const ended = saving.then(() => void (draftSaving === ended && (draftSaving = null)));
  draftSaving = ended;
}
