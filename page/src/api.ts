// The public REST interface, and nothing else. The key lives as long as the tab.

const KEY = "palate-key";

export type Fields = Record<string, unknown>;
export interface Item {
  item: string;
  fields: Fields;
  new?: boolean;
  shown?: boolean;
  media?: string[];
}
export interface EventShare {
  item: string;
  share: number;
  event?: string;
  time?: string | number;
}
export interface WordShare {
  field: string;
  start: number;
  stop: number;
  share: number;
}
export interface RegionShares {
  field: string;
  shares: number[][];
}
export type TimeShare = WordShare;
export interface Reasons {
  events: EventShare[];
  fields: { field: string; share: number }[];
  difference: number;
  sentence: string;
  words?: WordShare[];
  regions?: RegionShares[];
  frames?: TimeShare[];
  seconds?: TimeShare[];
}
export interface Pick extends Item {
  rank: number;
  score: number;
  source: string;
  reasons?: Reasons;
}
export interface Answer {
  user?: string | null;
  model: string;
  items: Pick[];
}
export interface Near extends Item {
  score: number;
}
export interface Interaction {
  event_id?: string;
  item: string;
  event: string;
  time: string | number | null;
  value?: number | null;
}
export interface Measured {
  value: number;
  low?: number;
  high?: number;
}
export interface ResultRow {
  name: string;
  ours: boolean;
  values: Record<string, Measured>;
}
export interface Results {
  title: string;
  people: number;
  catalogue: number;
  filter_seen: boolean;
  split: string;
  metrics: string[];
  rows: ResultRow[];
}
export interface Overview {
  model: string;
  name: string;
  version: string;
  people: number;
  items: number;
  new_items: number;
  events: number;
  event_types: string[];
  has_time: boolean;
  fields: { name: string; kind: string }[];
  title: string | null;
  label: string | null;
  filter_seen: boolean;
  index: { kind: string; recall: number };
  results: Results[];
  training: { epoch: number; loss: number; metric: number | null; seconds: number }[];
  metric: string;
  data: {
    before: Record<string, number>;
    after: Record<string, number>;
    rules: { rule: string; removed: number; remaining: number; detail: string }[];
    history_lengths: { from: number; to: number; people: number }[];
  };
  beside: string | null;
}
export interface Fit {
  user: string;
  rank: number;
  score: number;
}
export interface People {
  asked: number;
  among: number;
  median_rank: number;
  in_top_10: number;
  in_top_100: number;
  people: Fit[];
  parts: { field: string; share: number }[];
}
export interface Preview extends People {
  recommendable: boolean;
  neighbours: Near[];
}
export interface Points {
  total: number;
  labels: string[];
  points: { item: string; title: string | null; x: number; y: number; label: number; new: boolean }[];
}
export interface Compared {
  runs: { name: string; model: string; items: Pick[] }[];
  shared: number;
}
export interface Summary {
  asked: number;
  k: number;
  overlap: number;
  runs: {
    name: string;
    model: string;
    events: number;
    items: number;
    distinct: number;
    new_share: number;
    results: Results[];
  }[];
}

export class Refused extends Error {
  constructor(
    readonly status: number,
    message: string,
    readonly id = "",
  ) {
    super(message);
  }
}

export const key = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (value: string) => sessionStorage.setItem(KEY, value),
};

let askForKey = () => {};
export const whenKeyIsWanted = (ask: () => void) => (askForKey = ask);

async function sent(path: string, options: RequestInit = {}): Promise<Response> {
  const headers = new Headers(options.headers);
  if (key.get()) headers.set("X-API-Key", key.get());
  let response: Response;
  try {
    response = await fetch(path, { ...options, headers, credentials: "omit" });
  } catch (error) {
    if ((error as Error).name === "AbortError") throw error;
    throw new Refused(0, "");
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => ({}));
  if (response.status === 401) askForKey();
  throw new Refused(response.status, body.error?.message ?? response.statusText, body.error?.request_id);
}

export const get = async <T>(path: string, signal?: AbortSignal): Promise<T> =>
  (await sent(path, signal ? { signal } : {})).json();
export const text = async (path: string): Promise<string> => (await sent(path)).text();
export const blob = async (path: string): Promise<Blob> => (await sent(path)).blob();

export async function post<T>(path: string, body: unknown, signal?: AbortSignal): Promise<T> {
  const form = body instanceof FormData;
  const options: RequestInit = { method: "POST", body: form ? body : JSON.stringify(body) };
  if (!form) options.headers = { "Content-Type": "application/json" };
  if (signal) options.signal = signal;
  return (await sent(path, options)).json();
}

export async function put<T>(path: string, body: FormData): Promise<T> {
  return (await sent(path, { method: "PUT", body })).json();
}

export function query(path: string, options: Record<string, string | number | boolean | undefined>): string {
  const wanted = Object.entries(options).filter(([, value]) => value !== undefined && value !== "");
  const search = new URLSearchParams(wanted.map(([name, value]) => [name, String(value)]));
  return wanted.length ? `${path}?${search}` : path;
}

export const at = (kind: "items" | "users", name: string) => `/v1/${kind}/${encodeURIComponent(name)}`;
