// The pieces that screens are made of.
import type { ComponentChildren } from "preact";
import { createContext } from "preact";
import { useContext, useEffect, useRef, useState } from "preact/hooks";
import * as api from "./api";
import { share, useWords, whole } from "./words";

export const About = createContext<api.Overview | null>(null);
export const useAbout = () => useContext(About)!;

/** What a path answers; asked again when the path or `again` changes. */
export function useAnswer<T>(path: string | null, again = 0) {
  const [answer, put] = useState<{ path: string | null; value?: T; fault?: api.Refused }>({ path: null });
  useEffect(() => {
    if (!path) return;
    const stop = new AbortController();
    api
      .get<T>(path, stop.signal)
      .then((value) => put({ path, value }))
      .catch((fault) => fault.name !== "AbortError" && put({ path, fault }));
    return () => stop.abort();
  }, [path, again]);
  return answer.path === path ? answer : { path };
}

/** Waits until somebody has stopped typing. */
export function useSettled<T>(value: T, milliseconds = 150) {
  const [settled, put] = useState(value);
  useEffect(() => {
    const timer = setTimeout(() => put(value), milliseconds);
    return () => clearTimeout(timer);
  }, [value]);
  return settled;
}

export function Fault({ fault }: { fault: api.Refused }) {
  const { say } = useWords();
  return (
    <p class="fault" role="alert">
      {fault.status === 0 ? say("offline") : fault.message}
      {fault.id && <small>{` ${say("request")} ${fault.id}`}</small>}
    </p>
  );
}

export function Waiting<T>(props: { of: { value?: T; fault?: api.Refused }; children: (value: T) => ComponentChildren }) {
  const { say } = useWords();
  if (props.of.fault) return <Fault fault={props.of.fault} />;
  if (props.of.value === undefined) return <p class="waiting" role="status">{say("loading")}</p>;
  return <>{props.children(props.of.value)}</>;
}

export function titleOf(about: api.Overview, item: api.Item): string {
  const title = about.title ? item.fields[about.title] : null;
  return typeof title === "string" && title ? title : item.item;
}

export function labelOf(about: api.Overview, item: api.Item): string {
  const label = about.label ? item.fields[about.label] : null;
  return Array.isArray(label) ? label.join(", ") : label == null ? "" : String(label);
}

const hue = (label: string) => [...label].reduce((sum, letter) => (sum * 31 + letter.codePointAt(0)!) % 360, 7);

// Pictures come with the key in a header, so they are fetched, not linked to. The latest few hundred are kept.
const pictures = new Map<string, Promise<string>>();
function pictureOf(path: string): Promise<string> {
  let found = pictures.get(path);
  if (!found) {
    found = api.blob(path).then(URL.createObjectURL);
    pictures.set(path, found);
    if (pictures.size > 400) {
      const [oldest, url] = pictures.entries().next().value!;
      pictures.delete(oldest);
      url.then(URL.revokeObjectURL, () => {});
    }
  }
  return found;
}

export function Picture({ item, field = item.media?.[0], large = false }: { item: api.Item; field?: string | undefined; large?: boolean }) {
  const about = useAbout();
  const [source, put] = useState("");
  useEffect(() => {
    put("");
    if (!field) return;
    let wanted = true;
    pictureOf(`${api.at("items", item.item)}/media/${encodeURIComponent(field)}`).then(
      (url) => wanted && put(url),
      () => {},
    );
    return () => void (wanted = false);
  }, [item.item, field]);
  const title = titleOf(about, item);
  const frame = large ? "picture large" : "picture";
  if (source) return <img class={frame} src={source} alt="" />;
  const tint = { "--hue": String(hue(labelOf(about, item) || title)) };
  return (
    <span class={`${frame} letters`} style={tint} aria-hidden="true">
      {[...title].slice(0, 2).join("")}
    </span>
  );
}

export const itemLink = (item: string) => `#/item/${encodeURIComponent(item)}`;
export const personLink = (user: string) => `#/person/${encodeURIComponent(user)}`;

export function ItemLine(props: { item: api.Item; after?: ComponentChildren; note?: ComponentChildren }) {
  const about = useAbout();
  const { say } = useWords();
  const label = labelOf(about, props.item);
  return (
    <div class="item-line">
      <Picture item={props.item} />
      <div class="item-words">
        <a href={itemLink(props.item.item)}>{titleOf(about, props.item)}</a>
        <small>
          {props.item.new && <span class="tag">{say("isNew")}</span>}
          {props.item.shown === false && <span class="tag">{say("isHidden")}</span>}
          {props.note ?? label}
        </small>
      </div>
      {props.after}
    </div>
  );
}

/** A number and what it says. */
export function Figure({ value, children }: { value: string; children: ComponentChildren }) {
  return (
    <div class="figure">
      <dd>{value}</dd>
      <dt>{children}</dt>
    </div>
  );
}

/** Shares as bars from the middle; the numbers are there as text. */
export function Shares({ rows, caption }: { rows: { name: string; share: number }[]; caption: string }) {
  const most = Math.max(...rows.map((row) => Math.abs(row.share)), 1e-9);
  return (
    <table class="shares">
      <caption>{caption}</caption>
      <tbody>
        {rows.map((row, n) => (
          <tr key={n}>
            <th scope="row">{row.name}</th>
            <td class="bar">
              <span
                class={row.share < 0 ? "against" : ""}
                style={{ width: `${(Math.abs(row.share) / most) * 100}%` }}
              />
            </td>
            <td class="number">{share(row.share)}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

/** A field to find an item with; `choose` gets the one that was taken. */
export function FindItem(props: { label: string; choose: (item: api.Item) => void }) {
  const { say } = useWords();
  const about = useAbout();
  const [typed, type] = useState("");
  const [open, show] = useState(false);
  const [active, activate] = useState(-1);
  const settled = useSettled(typed);
  const found = useAnswer<{ items: api.Item[] }>(
    settled.trim() ? api.query("/v1/items", { search: settled.trim(), limit: 8 }) : null,
  );
  const items = open && found.value ? found.value.items : [];
  const name = useRef(`find-${Math.random().toString(36).slice(2)}`).current;
  const take = (item: api.Item) => {
    type("");
    show(false);
    activate(-1);
    props.choose(item);
  };
  const pressed = (event: KeyboardEvent) => {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      const step = event.key === "ArrowDown" ? 1 : -1;
      if (items.length) activate((active + step + items.length) % items.length);
    } else if (event.key === "Enter") {
      event.preventDefault();
      const chosen = items[Math.max(active, 0)];
      if (chosen) take(chosen);
    } else if (event.key === "Escape") show(false);
  };
  return (
    <div class="find">
      <label for={name}>{props.label}</label>
      <input
        id={name}
        type="search"
        list={undefined}
        autocomplete="off"
        role="combobox"
        aria-expanded={items.length > 0}
        aria-controls={`${name}-list`}
        aria-autocomplete="list"
        aria-activedescendant={active >= 0 && items[active] ? `${name}-${active}` : undefined}
        value={typed}
        onInput={(event) => {
          type(event.currentTarget.value);
          show(true);
          activate(-1);
        }}
        onKeyDown={pressed}
        onBlur={() => setTimeout(() => show(false), 200)}
      />
      <ul id={`${name}-list`} role="listbox" aria-label={props.label} hidden={!items.length}>
        {items.map((item, n) => (
          <li
            key={item.item}
            id={`${name}-${n}`}
            role="option"
            aria-selected={n === active}
            onMouseDown={(event) => {
              event.preventDefault();
              take(item);
            }}
          >
            {titleOf(about, item)} <small>{labelOf(about, item)}</small>
          </li>
        ))}
      </ul>
      <span class="unseen" role="status">{open && found.value ? say("found", { n: found.value.items.length }) : ""}</span>
    </div>
  );
}

export function ChoosePerson({ user, to }: { user: string; to: (user: string) => string }) {
  const { say } = useWords();
  const [typed, type] = useState(user);
  const some = useAnswer<{ users: { user: string; events: number }[] }>(
    api.query("/v1/users", { search: useSettled(typed === user ? "" : typed.trim()), limit: 8 }),
  );
  const shown = useRef(user);
  useEffect(() => {
    if (shown.current === user) return; // on a busy machine this runs when somebody has begun to type
    shown.current = user;
    type(user);
  }, [user]);
  return (
    <form
      class="choose"
      role="search"
      onSubmit={(event) => {
        event.preventDefault();
        if (typed.trim()) location.hash = to(typed.trim());
      }}
    >
      <label for="person">{say("personLabel")}</label>
      <div class="beside">
        <input id="person" type="search" autocomplete="off" value={typed} onInput={(event) => type(event.currentTarget.value)} />
        <button>{say("show")}</button>
      </div>
      {some.value && some.value.users.length > 0 && (
        <ul class="chips" aria-label={say("somePeople")}>
          {some.value.users.map((each) => (
            <li key={each.user}>
              <a href={to(each.user)} aria-current={each.user === user ? "true" : undefined}>
                {each.user} <small>{whole(each.events)}</small>
              </a>
            </li>
          ))}
        </ul>
      )}
    </form>
  );
}

export function Fitting({ people }: { people: api.People }) {
  const { say } = useWords();
  return (
    <>
      <p>{say("whoHelp", { among: whole(people.among), asked: whole(people.asked) })}</p>
      <dl class="figures">
        <Figure value={whole(people.median_rank)}>{say("medianRank")}</Figure>
        <Figure value={share(people.in_top_10)}>{say("top10")}</Figure>
        <Figure value={share(people.in_top_100)}>{say("top100")}</Figure>
      </dl>
      <ul class="chips" aria-label={say("who")}>
        {people.people.map((each) => (
          <li key={each.user}>
            <a href={personLink(each.user)}>
              {each.user} <small>{`${say("place")} ${whole(each.rank)}`}</small>
            </a>
          </li>
        ))}
      </ul>
      {people.parts.length > 0 && (
        <>
          <h3>{say("parts")}</h3>
          <Shares caption={say("partsHelp")} rows={people.parts.map((part) => ({ name: part.field, share: part.share }))} />
        </>
      )}
    </>
  );
}
