import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import * as api from "../api";
import { ChoosePerson, Fault, FindItem, itemLink, ItemLine, personLink, Picture, Shares, titleOf, useAbout, useAnswer, Waiting } from "../parts";
import { Inside } from "../inside";
import { useWords } from "../words";

const PLACES = 10;
const SHOWN_EVENTS = 60;

interface Moment extends api.Interaction {
  id: number;
  off: boolean;
  added: boolean;
}

const microseconds = (time: string | number | null) =>
  time === null ? null : typeof time === "number" ? time : Date.parse(time) * 1000;

/** The training history and the store's events, each once, oldest first. */
function together(found: { events: api.Interaction[]; trained: api.Interaction[] }): Moment[] {
  const known = new Set<string>();
  const all = [...found.trained, ...found.events].filter((each) => {
    const name = JSON.stringify([each.item, each.event, microseconds(each.time)]);
    return !known.has(name) && known.add(name);
  });
  const time = (each: api.Interaction) => microseconds(each.time) ?? -Infinity;
  return all
    .sort((a, b) => (time(a) === time(b) ? 0 : time(a) - time(b)))
    .map((each, id) => ({ ...each, id, off: false, added: false }));
}

function dayOf(time: string | number | null, language: string): string {
  const moment = microseconds(time);
  if (moment === null || moment < 1e12) return "";
  return new Date(moment / 1000).toLocaleDateString(language === "zh" ? "zh-CN" : "en-GB", { dateStyle: "medium" });
}

/** Rows glide to their new places; at once for those who want no motion. */
function useGlide(order: string) {
  const list = useRef<HTMLOListElement>(null);
  const before = useRef(new Map<string, number>());
  useLayoutEffect(() => {
    const now = new Map<string, number>();
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    for (const row of list.current?.children ?? []) {
      const [name, top] = [(row as HTMLElement).dataset.item!, (row as HTMLElement).offsetTop];
      const old = before.current.get(name);
      if (!still && before.current.size && old !== top)
        row.animate(
          old === undefined ? [{ opacity: 0 }, { opacity: 1 }] : [{ transform: `translateY(${old - top}px)` }, { transform: "none" }],
          { duration: 260, easing: "cubic-bezier(.2,.7,.2,1)" },
        );
      now.set(name, top);
    }
    before.current = now;
  }, [order]);
  return list;
}

type Look = (item: string) => Promise<api.Answer>;

function Why({ item, reasons, names, look }: { item: api.Item; reasons: api.Reasons; names: Map<string, string>; look: Look }) {
  const { say } = useWords();
  const [opened, open] = useState(false);
  const of = (share: number) => (reasons.difference ? share / Math.abs(reasons.difference) : 0);
  const fields = reasons.fields.map(({ field, share }) => ({ name: field, share: of(share) }));
  const largest = [...reasons.events].sort((a, b) => Math.abs(b.share) - Math.abs(a.share)).slice(0, 6);
  return (
    <details onToggle={(event) => event.currentTarget.open && open(true)}>
      <summary>
        <span class="unseen">{say("why")}: </span>
        {reasons.sentence || say("why")}
      </summary>
      <Shares caption={say("whyEvents")} rows={largest.map((each) => ({ name: names.get(each.item) ?? each.item, share: of(each.share) }))} />
      {fields.length > 0 && <Shares caption={say("whyFields")} rows={fields} />}
      {opened && <Inside key={JSON.stringify(reasons.events)} item={item} look={look} />}
    </details>
  );
}

function Recommended(props: { items: api.Pick[]; before: api.Pick[] | null; names: Map<string, string>; look: Look }) {
  const { say } = useWords();
  const list = useGlide(props.items.map((each) => each.item).join("\n"));
  const old = new Map(props.before?.map((each) => [each.item, each.rank]));
  const move = (each: api.Pick) => {
    if (!props.before) return null;
    const was = old.get(each.item);
    if (was === undefined) return <span class="move in">{say("entered")}</span>;
    if (was === each.rank) return null;
    const n = Math.abs(was - each.rank);
    return (
      <span class={was > each.rank ? "move in" : "move out"}>
        <span aria-hidden="true">{`${was > each.rank ? "↑" : "↓"} ${n}`}</span>
        <span class="unseen">{say(was > each.rank ? "up" : "down", { n })}</span>
      </span>
    );
  };
  if (!props.items.length) return <p>{say("noItems")}</p>;
  return (
    <ol class="recommended" ref={list}>
      {props.items.map((each) => (
        <li key={each.item} data-item={each.item}>
          <ItemLine item={each} note={say(`source_${each.source}` as "source_taste") ?? each.source} after={move(each)} />
          {each.reasons && <Why item={each} reasons={each.reasons} names={props.names} look={props.look} />}
        </li>
      ))}
    </ol>
  );
}

function WhatIf({ user, moments, filterSeen }: { user: string; moments: Moment[] | null; filterSeen: boolean }) {
  const { say, language } = useWords();
  const about = useAbout();
  const [history, change] = useState(moments ?? []);
  const [event, choose] = useState(about.event_types[0] ?? "");
  const [answer, put] = useState<api.Answer | null>(null);
  const [fault, fail] = useState<api.Refused | null>(null);
  const [every, showEvery] = useState(false);
  const items = useRef(new Map<string, api.Item>());
  const [, drawAgain] = useState(0);
  const actual = (inside?: string) =>
    api.query(`${api.at("users", user)}/recommendations`, { k: PLACES, explain: true, language, inside });
  const real = useAnswer<api.Answer>(actual());
  const altered = history.some((each) => each.off || each.added);
  const supposed = () => ({
    k: PLACES,
    language,
    filter_seen: filterSeen,
    history: history.filter((each) => !each.off).map(({ item, event, time }) => ({ item, event, ...(time === null ? {} : { time }) })),
  });
  const look: Look = (item) =>
    altered
      ? api.post<api.Answer>("/v1/recommendations", { ...supposed(), explain: true, inside: [item] })
      : api.get<api.Answer>(actual(item));

  useEffect(() => {
    if (!altered) return put(null);
    const stop = new AbortController();
    const body = supposed();
    const ask = (explain: boolean) =>
      api.post<api.Answer>("/v1/recommendations", { ...body, explain }, stop.signal).then((found) => {
        put(found);
        fail(null);
      });
    // The list moves first; its reasons take longer and follow.
    ask(false)
      .then(() => ask(true))
      .catch((error) => error.name !== "AbortError" && fail(error));
    return () => stop.abort();
  }, [history, language]);

  const shown = every ? history : history.slice(-SHOWN_EVENTS);
  useEffect(() => {
    const missing = [...new Set(shown.map((each) => each.item))].filter((item) => !items.current.has(item));
    if (!missing.length) return;
    let wanted = true;
    Promise.all(
      missing.map((item) =>
        api.get<api.Item>(api.at("items", item)).then(
          (found) => items.current.set(item, found),
          () => items.current.set(item, { item, fields: {} }),
        ),
      ),
    ).then(() => wanted && drawAgain((n) => n + 1));
    return () => void (wanted = false);
  }, [shown.length, every]);

  const named = (item: string) => {
    const known = items.current.get(item);
    return known ? titleOf(about, known) : item;
  };
  const names = new Map([...items.current.keys()].map((item) => [item, named(item)]));
  const picks = answer?.items ?? real.value?.items;
  const places = new Map(real.value?.items.map((each) => [each.item, each.rank]));
  const gone = answer && real.value ? real.value.items.filter((each) => !answer.items.some((now) => now.item === each.item)) : [];
  const moved = answer ? answer.items.filter((each) => places.get(each.item) !== each.rank).length : 0;
  let day = "";
  return (
    <div class="two">
      <section aria-labelledby="history">
        <h2 id="history">{say("history")}</h2>
        {moments === null && <p class="note">{say("historySecret")}</p>}
        {moments?.length === 0 && !altered && <p class="note">{say("historyNone")}</p>}
        {moments !== null && (
          <>
            <ol class="history">
              {[...shown].reverse().map((each) => {
                const its = dayOf(each.time, language);
                const heading = its && its !== day ? its : "";
                day = its || day;
                const known = items.current.get(each.item) ?? { item: each.item, fields: {} };
                return (
                  <li key={each.id} class={each.off ? "off" : ""}>
                    {heading && <time>{heading}</time>}
                    <div class="item-line">
                      <Picture item={known} />
                      <div class="item-words">
                        <a href={itemLink(each.item)}>{named(each.item)}</a>
                        <small>
                          {each.added && <span class="tag">{say("added")}</span>}
                          {each.event}
                        </small>
                      </div>
                      <button
                        class="quiet round"
                        aria-label={say(each.off ? "putBack" : "takeAway", { title: named(each.item) })}
                        onClick={() =>
                          change(
                            each.added
                              ? history.filter((other) => other.id !== each.id)
                              : history.map((other) => (other.id === each.id ? { ...other, off: !other.off } : other)),
                          )
                        }
                      >
                        <span aria-hidden="true">{each.off ? "+" : "×"}</span>
                      </button>
                    </div>
                  </li>
                );
              })}
            </ol>
            {history.length > shown.length && (
              <button class="quiet" onClick={() => showEvery(true)}>{say("more", { n: history.length - shown.length })}</button>
            )}
            <h3>{say("addEvent")}</h3>
            <div class="beside">
              {about.event_types.length > 1 && (
                <label>
                  {say("eventType")}{" "}
                  <select value={event} onChange={(chosen) => choose(chosen.currentTarget.value)}>
                    {about.event_types.map((type) => (
                      <option key={type}>{type}</option>
                    ))}
                  </select>
                </label>
              )}
              <FindItem
                label={say("addLabel")}
                choose={(item) => {
                  items.current.set(item.item, item);
                  const time = about.has_time ? Date.now() * 1000 : null;
                  const id = Math.max(-1, ...history.map((each) => each.id)) + 1;
                  change([...history, { id, item: item.item, event, time, off: false, added: true }]);
                }}
              />
            </div>
          </>
        )}
      </section>
      <section aria-labelledby="recommended">
        <h2 id="recommended">{say(answer ? "whatIf" : "recommended")}</h2>
        <p class="note" role="status">
          {answer && say("changed", { n: moved, k: answer.items.length })}{" "}
          {altered && <button class="quiet" onClick={() => change(moments ?? [])}>{say("reset")}</button>}
        </p>
        {fault && <Fault fault={fault} />}
        {picks ? <Recommended items={picks} before={answer ? (real.value?.items ?? null) : null} names={names} look={look} /> : <Waiting of={real}>{() => null}</Waiting>}
        {gone.length > 0 && (
          <>
            <h3>{say("left")}</h3>
            <ul class="plain">
              {gone.map((each) => (
                <li key={each.item}><ItemLine item={each} /></li>
              ))}
            </ul>
          </>
        )}
      </section>
    </div>
  );
}

export function PersonScreen({ of }: { of: string }) {
  const { say } = useWords();
  const about = useAbout();
  const found = useAnswer<{ events: api.Interaction[]; trained: api.Interaction[] }>(of ? api.at("users", of) : null);
  const secret = found.fault?.status === 403 || found.fault?.status === 401;
  const moments = useMemo(() => (found.value ? together(found.value) : null), [found.value]);
  return (
    <>
      <p class="lead">{say("leadPerson")}</p>
      <ChoosePerson user={of} to={personLink} />
      {of && (secret || found.fault?.status === 404 ? (
        <WhatIf key={of} user={of} moments={secret ? null : []} filterSeen={about.filter_seen} />
      ) : (
        <Waiting of={found}>{() => <WhatIf key={of} user={of} moments={moments} filterSeen={about.filter_seen} />}</Waiting>
      ))}
    </>
  );
}
