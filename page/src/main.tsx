import { render } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import * as api from "./api";
import { About, Fault } from "./parts";
import { remember, remembered, sayer, Spoken, useWords } from "./words";
import type { Word } from "./words";
import { OverviewScreen } from "./screens/overview";
import { PersonScreen } from "./screens/person";
import { ItemScreen } from "./screens/item";
import { NewItemScreen } from "./screens/new";
import { CompareScreen } from "./screens/compare";
import { MapScreen } from "./screens/map";
import "./style.css";

const SCREENS: [string, Word, (props: { of: string }) => preact.JSX.Element][] = [
  ["overview", "overview", OverviewScreen],
  ["person", "person", PersonScreen],
  ["item", "item", ItemScreen],
  ["new", "newItem", NewItemScreen],
  ["compare", "compare", CompareScreen],
  ["map", "map", MapScreen],
];

function place(): [string, string] {
  const [screen = "", of = ""] = location.hash.replace(/^#\//, "").split("/");
  return [screen || "overview", decodeURIComponent(of)];
}

function AskForKey({ done }: { done: () => void }) {
  const { say } = useWords();
  const dialog = useRef<HTMLDialogElement>(null);
  const [typed, type] = useState("");
  useEffect(() => dialog.current?.showModal(), []);
  return (
    <dialog ref={dialog} aria-labelledby="key-title" onCancel={(event) => event.preventDefault()}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          api.key.set(typed);
          done();
        }}
      >
        <h2 id="key-title">{say("keyTitle")}</h2>
        <p id="key-help">{say("keyHelp")}</p>
        <label for="key">{say("keyLabel")}</label>
        <input
          id="key"
          type="password"
          required
          autocomplete="off"
          aria-describedby="key-help"
          value={typed}
          onInput={(event) => type(event.currentTarget.value)}
        />
        <button>{say("keyUse")}</button>
      </form>
    </dialog>
  );
}

function Page() {
  const [language, speak] = useState(remembered);
  const [[screen, of], go] = useState(place);
  const [about, know] = useState<api.Overview | null>(null);
  const [fault, fail] = useState<api.Refused | null>(null);
  const [asking, ask] = useState(false);
  const [again, retry] = useState(0);
  const main = useRef<HTMLElement>(null);
  const spoken = useMemo(() => ({ language, say: sayer(language) }), [language]);
  const { say } = spoken;

  useEffect(() => {
    const moved = () => {
      go(place());
      main.current?.focus({ preventScroll: true });
      scrollTo(0, 0);
    };
    addEventListener("hashchange", moved);
    api.whenKeyIsWanted(() => ask(true));
    return () => removeEventListener("hashchange", moved);
  }, []);
  useEffect(() => {
    fail(null);
    api.get<api.Overview>("/v1/overview").then(know, fail);
  }, [again]);
  const [, name, Screen] = SCREENS.find(([path]) => path === screen) ?? SCREENS[0]!;
  useEffect(() => {
    document.documentElement.lang = language === "zh" ? "zh-Hans" : "en";
    document.title = `${say(name)} · Palate`;
  }, [language, name]);

  return (
    <Spoken.Provider value={spoken}>
      <a class="skip" href="#content" onClick={(event) => { event.preventDefault(); main.current?.focus(); }}>
        {say("skip")}
      </a>
      <header>
        <a class="name" href="#/overview">Palate</a>
        <nav aria-label={say("screens")}>
          {SCREENS.map(([path, word]) => (
            <a key={path} href={`#/${path}`} aria-current={path === screen ? "page" : undefined}>
              {say(word)}
            </a>
          ))}
        </nav>
        <button
          class="quiet"
          lang={language === "zh" ? "en" : "zh-Hans"}
          onClick={() => {
            const other = language === "zh" ? "en" : "zh";
            remember(other);
            speak(other);
          }}
        >
          {say("language")}
        </button>
      </header>
      <main id="content" ref={main} tabIndex={-1}>
        <h1>{say(name)}</h1>
        {fault && !asking && <Fault fault={fault} />}
        {!about && !fault && <p class="waiting" role="status">{say("loading")}</p>}
        {about && (
          <About.Provider value={about}>
            <Screen key={again} of={of} />
          </About.Provider>
        )}
      </main>
      {asking && <AskForKey done={() => { ask(false); retry(again + 1); }} />}
    </Spoken.Provider>
  );
}

render(<Page />, document.getElementById("page")!);
