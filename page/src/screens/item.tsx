import { useEffect, useRef, useState } from "preact/hooks";
import * as api from "../api";
import { Fault, Fitting, ItemLine, Picture, titleOf, useAbout, useAnswer, useSettled, Waiting } from "../parts";
import { useWords, whole } from "../words";

const ROW = 64;
const PAGE = 100;
const SHOWN_NEXT = 6;
// Browsers stop at some thirty million pixels.
const MOST_ROWS = 400_000;

/** All items that were found; only the rows in view exist, and pages are fetched when they come near. */
function Browse() {
  const { say } = useWords();
  const [typed, type] = useState("");
  const search = useSettled(typed.trim());
  const [total, count] = useState(0);
  const [fault, fail] = useState<api.Refused | null>(null);
  const [top, scroll] = useState(0);
  const [, drawAgain] = useState(0);
  const pages = useRef(new Map<number, api.Item[] | null>());
  const box = useRef<HTMLDivElement>(null);
  const height = box.current?.clientHeight ?? 600;
  const rows = Math.min(total, MOST_ROWS);
  const first = Math.max(0, Math.floor(top / ROW) - 4);
  const last = Math.min(rows, Math.ceil((top + height) / ROW) + 4);

  const load = (page: number, known: Map<number, api.Item[] | null>) => {
    if (known.has(page)) return;
    known.set(page, null);
    api.get<{ total: number; items: api.Item[] }>(api.query("/v1/items", { search, offset: page * PAGE, limit: PAGE })).then(
      (found) => {
        if (pages.current !== known) return;
        known.set(page, found.items);
        count(found.total);
        fail(null);
        drawAgain((n) => n + 1);
      },
      (error) => pages.current === known && fail(error),
    );
  };
  useEffect(() => {
    pages.current = new Map();
    if (box.current) box.current.scrollTop = 0;
    scroll(0);
    load(0, pages.current);
  }, [search]);
  useEffect(() => {
    if (total) for (let page = Math.floor(first / PAGE); page * PAGE < last; page++) load(page, pages.current);
  }, [first, last, total]);

  return (
    <>
      <label for="browse">{say("browseLabel")}</label>
      <input id="browse" type="search" autocomplete="off" value={typed} onInput={(event) => type(event.currentTarget.value)} />
      <p class="note" role="status">{say("found", { n: whole(total) })}</p>
      {fault && <Fault fault={fault} />}
      <div
        class="browse"
        ref={box}
        tabIndex={0}
        role="region"
        aria-label={say("browse")}
        onScroll={(event) => scroll(event.currentTarget.scrollTop)}
      >
        <ul style={{ height: `${rows * ROW}px` }}>
          {Array.from({ length: Math.max(0, last - first) }, (_, k) => {
            const n = first + k;
            const item = pages.current.get(Math.floor(n / PAGE))?.[n % PAGE];
            return (
              <li key={n} style={{ top: `${n * ROW}px` }} aria-setsize={total} aria-posinset={n + 1}>
                {item ? <ItemLine item={item} /> : <span class="waiting">…</span>}
              </li>
            );
          })}
        </ul>
      </div>
    </>
  );
}

function shownValue(value: unknown): string {
  if (Array.isArray(value)) return value.map(String).join(", ");
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

/** What the model recommends after this item alone, without what is as near to it as what is shown beside. */
function useNext(item: string, near: api.Near[] | undefined): api.Pick[] {
  const [found, put] = useState<api.Pick[]>([]);
  useEffect(() => {
    put([]);
    if (!near) return;
    const stop = new AbortController();
    const exclude = near.map((each) => each.item);
    api
      .post<api.Answer>("/v1/recommendations", { history: [item], k: SHOWN_NEXT, filter_seen: true, exclude }, stop.signal)
      .then((answer) => put(answer.items.filter((each) => each.source === "taste")))
      .catch(() => {}); // an item that the model cannot read has none
    return () => stop.abort();
  }, [item, near]);
  return found;
}

function One({ item, changed }: { item: api.Item; changed: () => void }) {
  const { say } = useWords();
  const about = useAbout();
  const [fault, fail] = useState<api.Refused | null>(null);
  const path = api.at("items", item.item);
  const near = useAnswer<{ items: api.Near[] }>(`${path}/similar?k=12`);
  const people = useAnswer<api.People>(`${path}/people`);
  const next = useNext(item.item, near.value?.items);
  const known = Object.entries(item.fields).filter(([, value]) => value !== null && value !== "");
  return (
    <>
      <div class="hero">
        <Picture item={item} large />
        <div>
          <h2>{titleOf(about, item)}</h2>
          <p class="note">
            <code>{item.item}</code> {item.new && <span class="tag">{say("isNew")}</span>}
            {item.shown === false && <span class="tag">{say("isHidden")}</span>}
          </p>
          <button
            class="quiet"
            onClick={() => api.post(`${path}/${item.shown === false ? "show" : "hide"}`, {}).then(changed, fail)}
          >
            {say(item.shown === false ? "showAgain" : "hide")}
          </button>
          {fault && <Fault fault={fault} />}
        </div>
      </div>
      <div class="two">
        <div>
          <section aria-labelledby="fields">
            <h2 id="fields">{say("fields")}</h2>
            <dl class="fields">
              {known.map(([name, value]) => (
                <div key={name}>
                  <dt>{name}</dt>
                  <dd>{shownValue(value)}</dd>
                </div>
              ))}
            </dl>
          </section>
          <section aria-labelledby="who">
            <h2 id="who">{say("who")}</h2>
            <Waiting of={people}>{(found) => <Fitting people={found} />}</Waiting>
          </section>
        </div>
        <section aria-labelledby="near">
          <h2 id="near">{say("near")}</h2>
          <p class="note">{say("nearHelp")}</p>
          <Waiting of={near}>
            {(found) => (
              <ul class="plain">
                {found.items.map((each) => (
                  <li key={each.item}>
                    <ItemLine item={each} after={<span class="number">{each.score.toFixed(2)}</span>} />
                  </li>
                ))}
              </ul>
            )}
          </Waiting>
          {next.length > 0 && (
            <section aria-labelledby="next">
              <h2 id="next">{say("next")}</h2>
              <p class="note">{say("nextHelp")}</p>
              <ul class="plain">
                {next.map((each) => (
                  <li key={each.item}><ItemLine item={each} /></li>
                ))}
              </ul>
            </section>
          )}
        </section>
      </div>
    </>
  );
}

export function ItemScreen({ of }: { of: string }) {
  const { say } = useWords();
  const [again, retry] = useState(0);
  const found = useAnswer<api.Item>(of ? api.at("items", of) : null, again);
  return (
    <>
      <p class="lead">{say("leadItem")}</p>
      {of ? (
        <>
          <p><a href="#/item">{say("back")}</a></p>
          <Waiting of={found}>{(item) => <One key={of} item={item} changed={() => retry(again + 1)} />}</Waiting>
        </>
      ) : (
        <Browse />
      )}
    </>
  );
}
