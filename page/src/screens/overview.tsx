import { useEffect, useState } from "preact/hooks";
import * as api from "../api";
import { Figure, useAbout } from "../parts";
import { metricLabel, rankerLabel, share, useWords, whole } from "../words";

interface Reading {
  at: number;
  requests: number;
  failed: number;
  buckets: Map<number, number>;
}

/** Requests and how long they took, out of the server's own measurements. */
function reading(text: string, at: number): Reading | null {
  const found: Reading = { at, requests: 0, failed: 0, buckets: new Map() };
  let any = false;
  for (const line of text.split("\n")) {
    const parts = /^palate_(request_seconds_bucket|requests_total)\{(.*)\} ([\d.e+]+)$/.exec(line);
    if (!parts) continue;
    const [, name, labels = "", value] = parts;
    if (name === "requests_total") {
      any = true;
      found.requests += Number(value);
      if (/status="5/.test(labels)) found.failed += Number(value);
    } else {
      const edge = /le="([^"]+)"/.exec(labels)?.[1] ?? "";
      const limit = edge === "+Inf" ? Infinity : Number(edge);
      found.buckets.set(limit, (found.buckets.get(limit) ?? 0) + Number(value));
    }
  }
  return any ? found : null;
}

function within(part: number, now: Reading, before: Reading | null): string {
  const counts = [...now.buckets].sort(([a], [b]) => a - b);
  const [, all = 0] = counts.at(-1) ?? [];
  const total = all - (before?.buckets.get(Infinity) ?? 0);
  for (const [limit, count] of counts)
    if (count - (before?.buckets.get(limit) ?? 0) >= part * total && total > 0)
      return limit === Infinity ? "> 10 s" : `≤ ${limit * 1000 >= 10 ? whole(limit * 1000) : limit * 1000} ms`;
  return "–";
}

function Live() {
  const { say } = useWords();
  const [readings, put] = useState<Reading[]>([]);
  useEffect(() => {
    const ask = () =>
      api.text("/metrics").then(
        (text) => {
          const now = reading(text, performance.now());
          if (now) put((old) => [...old.slice(0, 1), now]);
        },
        () => {},
      );
    ask();
    const timer = setInterval(() => document.visibilityState === "visible" && ask(), 3000);
    return () => clearInterval(timer);
  }, []);
  const [first, now] = [readings[0], readings.at(-1)];
  if (!first || !now) return <p>{say("noMetrics")}</p>;
  const since = now === first ? null : first;
  const rate = since ? ((now.requests - since.requests) * 1000) / (now.at - since.at) : null;
  return (
    <>
      <dl class="figures">
        <Figure value={rate === null ? "–" : rate.toFixed(1)}>{say("perSecond")}</Figure>
        <Figure value={within(0.5, now, since)}>{say("median")}</Figure>
        <Figure value={within(0.99, now, since)}>{say("slowest")}</Figure>
        <Figure value={whole(now.failed - (since?.failed ?? 0))}>{say("failed")}</Figure>
      </dl>
      <p class="note">{say("since")}</p>
    </>
  );
}

function Foretells({ all }: { all: api.Results[] }) {
  const { say, language } = useWords();
  const [which, choose] = useState(0);
  const results = all[which]!;
  const [metric, measure] = useState("");
  const chosen = results.metrics.includes(metric) ? metric : results.metrics[0]!;
  const label = metricLabel(chosen, language);
  const rows = results.rows.filter((row) => row.values[chosen]);
  const most = Math.max(...rows.map((row) => row.values[chosen]!.high ?? row.values[chosen]!.value), 1e-9) * 1.06;
  return (
    <>
      <p>
        {say("askedPeople", {
          people: whole(results.people),
          catalogue: whole(results.catalogue),
          seen: say(results.filter_seen ? "seenOut" : "seenIn"),
        })}{" "}
        {say("resultsHelp")}
      </p>
      <div class="beside">
        {all.length > 1 && (
          <label>
            {say("judgement")}{" "}
            <select value={which} onChange={(event) => choose(Number(event.currentTarget.value))}>
              {all.map((each, n) => (
                <option key={n} value={n}>{each.title}</option>
              ))}
            </select>
          </label>
        )}
        <label>
          {say("measure")}{" "}
          <select value={chosen} onChange={(event) => measure(event.currentTarget.value)}>
            {results.metrics.map((each) => (
              <option key={each} value={each}>{metricLabel(each, language)}</option>
            ))}
          </select>
        </label>
      </div>
      <table class="results">
        <caption class="unseen">{`${results.title}: ${label}`}</caption>
        <thead>
          <tr>
            <th scope="col">{say("method")}</th>
            <th scope="col" colSpan={2}>{label}</th>
          </tr>
        </thead>
        <tbody>
          {rows.map((row) => {
            const { value, low = value, high = value } = row.values[chosen]!;
            const across = (number: number) => `${(Math.max(number, 0) / most) * 100}%`;
            return (
              <tr key={row.name} class={row.ours ? "ours" : ""}>
                <th scope="row">{rankerLabel(row.name, language)}</th>
                <td class="interval" aria-hidden="true">
                  <i style={{ left: across(low), width: across(high - low) }} />
                  <b style={{ left: across(value) }} />
                </td>
                <td class="number">
                  {value.toFixed(3)} <small>{`${low.toFixed(3)} – ${high.toFixed(3)}`}</small>
                </td>
              </tr>
            );
          })}
        </tbody>
      </table>
    </>
  );
}

function Curve(props: { label: string; values: (number | null)[] }) {
  const known = props.values.map((value, n) => [n, value] as const).filter(([, value]) => value !== null) as [number, number][];
  if (!known.length) return null;
  const [low, high] = [Math.min(...known.map(([, v]) => v)), Math.max(...known.map(([, v]) => v))];
  const x = (n: number) => 8 + (n / Math.max(props.values.length - 1, 1)) * 264;
  const y = (value: number) => 82 - ((value - low) / Math.max(high - low, 1e-12)) * 72;
  const path = known.map(([n, value], k) => `${k ? "L" : "M"}${x(n).toFixed(1)} ${y(value).toFixed(1)}`).join("");
  const digits = (value: number) => (Math.abs(value) >= 1 ? value.toFixed(2) : value.toFixed(4));
  const said = `${props.label}: ${digits(known[0]![1])} → ${digits(known.at(-1)![1])}`;
  return (
    <figure class="curve">
      <svg viewBox="0 0 280 92" role="img" aria-label={said}>
        <path d={path} />
        {known.map(([n, value]) => (
          <circle key={n} cx={x(n)} cy={y(value)} r="3" />
        ))}
      </svg>
      <figcaption>{said}</figcaption>
    </figure>
  );
}

export function OverviewScreen() {
  const { say, language } = useWords();
  const about = useAbout();
  const longest = Math.max(...about.data.history_lengths.map((bin) => bin.people), 1);
  const counts = { people: whole(about.people), items: whole(about.items), events: whole(about.events), name: about.name };
  return (
    <>
      <p class="lead">{say("leadOverview", counts)}</p>
      <dl class="figures">
        <Figure value={counts.people}>{say("people")}</Figure>
        <Figure value={counts.items}>{say("items")}</Figure>
        <Figure value={counts.events}>{say("events")}</Figure>
        <Figure value={whole(about.new_items)}>{say("newOnes")}</Figure>
      </dl>
      <p class="note">
        {say("modelIs")} <code>{about.model.slice(0, 12)}</code> · Palate {about.version} · {say("index")}:{" "}
        {about.index.kind === "exact" ? say("exact") : say("approximate", { recall: share(about.index.recall) })}
      </p>
      <section aria-labelledby="live">
        <h2 id="live">{say("live")}</h2>
        <Live />
      </section>
      <section aria-labelledby="results">
        <h2 id="results">{say("results")}</h2>
        {about.results.length ? <Foretells all={about.results} /> : <p>{say("noResults")}</p>}
      </section>
      <section aria-labelledby="training">
        <h2 id="training">{say("training")}</h2>
        {about.training.length ? (
          <div class="curves">
            <Curve label={say("loss")} values={about.training.map((pass) => pass.loss)} />
            <Curve label={metricLabel(about.metric, language)} values={about.training.map((pass) => pass.metric)} />
          </div>
        ) : (
          <p>{say("noTraining")}</p>
        )}
      </section>
      <section aria-labelledby="data">
        <h2 id="data">{say("data")}</h2>
        <div class="wide" tabIndex={0} role="region" aria-label={say("data")}>
          <table>
            <thead>
              <tr>
                <th scope="col">{say("rule")}</th>
                <th scope="col" class="number">{say("removed")}</th>
                <th scope="col" class="number">{say("remaining")}</th>
                <th scope="col">{say("detail")}</th>
              </tr>
            </thead>
            <tbody>
              {about.data.rules.map((rule, n) => (
                <tr key={n}>
                  <th scope="row">{rule.rule}</th>
                  <td class="number">{whole(rule.removed)}</td>
                  <td class="number">{whole(rule.remaining)}</td>
                  <td>{rule.detail}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
        <table class="shares">
          <caption>{say("historyLengths")}</caption>
          <tbody>
            {about.data.history_lengths.map((bin) => (
              <tr key={bin.from}>
                <th scope="row">{bin.from === bin.to ? bin.from : `${bin.from}–${bin.to}`}</th>
                <td class="bar"><span style={{ width: `${(bin.people / longest) * 100}%` }} /></td>
                <td class="number">{whole(bin.people)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </section>
    </>
  );
}
