import * as api from "../api";
import { ChoosePerson, Figure, ItemLine, useAbout, useAnswer, Waiting } from "../parts";
import { metricLabel, share, useWords, whole } from "../words";

const toPerson = (user: string) => `#/compare/${encodeURIComponent(user)}`;

function Person({ user }: { user: string }) {
  const { say } = useWords();
  const found = useAnswer<api.Compared>(`/v1/compare/users/${encodeURIComponent(user)}?k=10`);
  return (
    <Waiting of={found}>
      {({ runs, shared }) => (
        <>
          <p role="status">{say("inCommon", { n: shared })}</p>
          <div class="two">
            {runs.map((run, n) => {
              const others = new Set(runs[1 - n]?.items.map((each) => each.item));
              return (
                <section key={n} aria-labelledby={`run-${n}`}>
                  <h2 id={`run-${n}`}>{run.name} <small><code>{run.model.slice(0, 8)}</code></small></h2>
                  <ol class="recommended">
                    {run.items.map((each) => (
                      <li key={each.item}>
                        <ItemLine item={each} after={others.has(each.item) ? <span class="tag">{say("both")}</span> : null} />
                      </li>
                    ))}
                  </ol>
                </section>
              );
            })}
          </div>
        </>
      )}
    </Waiting>
  );
}

function Many() {
  const { say, language } = useWords();
  const found = useAnswer<api.Summary>("/v1/compare/summary");
  return (
    <Waiting of={found}>
      {(summary) => (
        <>
          <dl class="figures">
            <Figure value={share(summary.overlap)}>{say("overlap", { k: summary.k })}</Figure>
          </dl>
          <div class="two">
            {summary.runs.map((run, n) => (
              <section key={n} aria-labelledby={`sum-${n}`}>
                <h3 id={`sum-${n}`}>{run.name}</h3>
                <dl class="figures">
                  <Figure value={whole(run.distinct)}>{say("distinct", { asked: whole(summary.asked) })}</Figure>
                  <Figure value={share(run.new_share)}>{say("newShare")}</Figure>
                </dl>
                {run.results.map((results) => (
                  <table key={results.title} class="results">
                    <caption>{results.title}</caption>
                    <tbody>
                      {results.metrics.slice(0, 4).map((metric) => {
                        const ours = results.rows.find((row) => row.ours)?.values[metric];
                        return ours ? (
                          <tr key={metric}>
                            <th scope="row">{metricLabel(metric, language)}</th>
                            <td class="number">
                              {ours.value.toFixed(3)}{" "}
                              {ours.low !== undefined && <small>{`${ours.low.toFixed(3)} – ${ours.high?.toFixed(3)}`}</small>}
                            </td>
                          </tr>
                        ) : null;
                      })}
                    </tbody>
                  </table>
                ))}
              </section>
            ))}
          </div>
        </>
      )}
    </Waiting>
  );
}

export function CompareScreen({ of }: { of: string }) {
  const { say } = useWords();
  const about = useAbout();
  return (
    <>
      <p class="lead">{say("leadCompare")}</p>
      {about.beside === null ? (
        <p>{say("noBeside")}</p>
      ) : (
        <>
          <ChoosePerson user={of} to={toPerson} />
          {of ? <Person user={of} /> : <Many />}
        </>
      )}
    </>
  );
}
