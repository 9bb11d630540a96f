// Which words, regions and seconds of an item carried it: shown on the item itself.
import { useEffect, useRef, useState } from "preact/hooks";
import * as api from "./api";
import { Fault, Picture, Shares, titleOf, useAbout } from "./parts";
import { share, useWords } from "./words";

const strongest = (shares: number[]) => Math.max(...shares.map(Math.abs), 1e-9);

/** A colour of its own for and against, as strong as the share is beside the largest. */
function tint(value: number, most: number, fullest: number) {
  const strength = Math.round((Math.abs(value) / most) * fullest);
  return { background: `color-mix(in srgb, var(${value < 0 ? "--against" : "--accent"}) ${strength}%, transparent)` };
}

function Highlighted({ text, words, of }: { text: string; words: api.WordShare[]; of: (share: number) => number }) {
  const letters = [...text]; // places are characters, not halves of them
  const most = strongest(words.map((word) => word.share));
  let done = 0;
  return (
    <p class="highlighted">
      {words.map((word, n) => {
        const before = letters.slice(done, word.start).join("");
        done = word.stop;
        return (
          <span key={n}>
            {before}
            <mark style={tint(word.share, most, 38)} title={share(of(word.share))}>
              {letters.slice(word.start, word.stop).join("")}
              <span class="unseen">{` (${share(of(word.share))})`}</span>
            </mark>
          </span>
        );
      })}
      {letters.slice(done).join("")}
    </p>
  );
}

function Heat({ item, region }: { item: api.Item; region: api.RegionShares }) {
  const { say } = useWords();
  const flat = region.shares.flat();
  const most = strongest(flat);
  const across = region.shares[0]?.length ?? 1;
  const best = flat.indexOf(Math.max(...flat));
  const third = (place: number, length: number) => Math.min(2, Math.floor((3 * (place + 0.5)) / length));
  const row = (["above", "middle", "below"] as const)[third(Math.floor(best / across), region.shares.length)]!;
  const column = (["leftSide", "centre", "rightSide"] as const)[third(best % across, across)]!;
  const says = say("heat", { field: region.field, row: say(row), column: say(column) });
  return (
    <figure class="heat">
      <div>
        <Picture item={item} field={region.field} large />
        <div class="squares" role="img" aria-label={says} style={{ gridTemplateColumns: `repeat(${across}, 1fr)` }}>
          {flat.map((value, n) => (
            <span key={n} style={tint(value, most, 75)} />
          ))}
        </div>
      </div>
      <figcaption>{says}</figcaption>
    </figure>
  );
}

const tenth = (value: number) => value.toFixed(1);

function Found({ item, reasons }: { item: api.Item; reasons: api.Reasons }) {
  const { say } = useWords();
  const about = useAbout();
  const of = (value: number) => (reasons.difference ? value / Math.abs(reasons.difference) : 0);
  const texts = [...new Set(reasons.words?.map((word) => word.field))];
  const rows = (parts: api.TimeShare[], name: (part: api.TimeShare) => string) =>
    parts.map((part) => ({ name: name(part), share: of(part.share) }));
  const nothing = !texts.length && !reasons.regions?.length && !reasons.frames?.length && !reasons.seconds?.length;
  if (nothing) return <p class="note">{say("nothingInside")}</p>;
  return (
    <>
      {texts.length > 0 && <p class="note">{say("whyWords")}</p>}
      {texts.map((field) => (
        <Highlighted
          key={field}
          text={String(item.fields[field] ?? titleOf(about, item))}
          words={reasons.words!.filter((word) => word.field === field)}
          of={of}
        />
      ))}
      {reasons.regions?.map((region) => <Heat key={region.field} item={item} region={region} />)}
      {reasons.seconds && reasons.seconds.length > 0 && (
        <Shares caption={say("whySeconds")} rows={rows(reasons.seconds, (part) => `${tenth(part.start)}–${tenth(part.stop)} s`)} />
      )}
      {reasons.frames && reasons.frames.length > 0 && (
        <Shares caption={say("whyFrames")} rows={rows(reasons.frames, (part) => `${share(part.start)} – ${share(part.stop)}`)} />
      )}
    </>
  );
}

/** Asked for when it is first opened, since a picture is encoded 65 times for it; anew when the list is another. */
export function Inside({ item, look }: { item: api.Item; look: (item: string) => Promise<api.Answer> }) {
  const { say } = useWords();
  const [reasons, put] = useState<api.Reasons | null>(null);
  const [fault, fail] = useState<api.Refused | null>(null);
  const asked = useRef(look);
  asked.current = look;
  useEffect(() => {
    let wanted = true;
    asked.current(item.item).then(
      (answer) => {
        const found = answer.items.find((each) => each.item === item.item)?.reasons;
        if (wanted && found) put(found);
      },
      (error) => wanted && fail(error),
    );
    return () => void (wanted = false);
  }, [item.item]);
  if (fault) return <Fault fault={fault} />;
  if (!reasons) return <p class="note" role="status">{say("loading")}</p>;
  return <Found item={item} reasons={reasons} />;
}
