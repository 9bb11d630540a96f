import { useEffect, useState } from "preact/hooks";
import * as api from "../api";
import { Fault, Fitting, itemLink, ItemLine, useAbout } from "../parts";
import { useWords } from "../words";

const MEDIA: Record<string, string> = { image: "image/*", video: "video/*", audio: "audio/*" };

function Drop(props: { field: string; kind: string; file: File | undefined; take: (file: File) => void }) {
  const { say } = useWords();
  const [over, drag] = useState(false);
  const [source, put] = useState("");
  useEffect(() => {
    if (!props.file || props.kind !== "image") return;
    const url = URL.createObjectURL(props.file);
    put(url);
    return () => URL.revokeObjectURL(url);
  }, [props.file]);
  const name = `file-${props.field}`;
  return (
    <div
      class={over ? "drop over" : "drop"}
      onDragOver={(event) => {
        event.preventDefault();
        drag(true);
      }}
      onDragLeave={() => drag(false)}
      onDrop={(event) => {
        event.preventDefault();
        drag(false);
        const file = event.dataTransfer?.files[0];
        if (file) props.take(file);
      }}
    >
      {source && <img src={source} alt={props.file?.name ?? ""} />}
      <label for={name}>{props.kind === "image" ? say("drop") : say("dropMedia", { field: props.field })}</label>
      <input
        id={name}
        type="file"
        accept={MEDIA[props.kind]}
        onChange={(event) => {
          const file = event.currentTarget.files?.[0];
          if (file) props.take(file);
        }}
      />
    </div>
  );
}

export function NewItemScreen() {
  const { say } = useWords();
  const about = useAbout();
  const [typed, type] = useState<Record<string, string>>({});
  const [files, take] = useState<Record<string, File>>({});
  const [name, call] = useState("");
  const [preview, put] = useState<api.Preview | null>(null);
  const [fault, fail] = useState<api.Refused | null>(null);
  const [saved, save] = useState("");
  const [busy, work] = useState(false);
  const shown = about.fields.filter((field) => !(field.kind in MEDIA) && field.kind !== "vector");
  const media = about.fields.filter((field) => field.kind in MEDIA);

  const form = () => {
    const fields: api.Fields = {};
    for (const { name, kind } of shown) {
      const value = (typed[name] ?? "").trim();
      if (!value) continue;
      fields[name] =
        kind === "number" ? Number(value) : kind === "categories" ? value.split(/[,，、]/).map((part) => part.trim()).filter(Boolean) : value;
    }
    const data = new FormData();
    data.append("fields", new Blob([JSON.stringify(fields)], { type: "application/json" }), "fields.json");
    for (const [field, file] of Object.entries(files)) data.append(field, file);
    return data;
  };
  const during = async (task: () => Promise<void>) => {
    work(true);
    fail(null);
    save("");
    await task().catch(fail);
    work(false);
  };
  const look = () => during(async () => put(await api.post<api.Preview>("/v1/items/preview", form())));
  const keep = () =>
    during(async () => {
      await api.put(api.at("items", name.trim()), form());
      save(name.trim());
    });

  return (
    <>
      <p class="lead">{say("leadNew")}</p>
      <div class="two">
        <form
          onSubmit={(event) => {
            event.preventDefault();
            void look();
          }}
        >
          {media.map(({ name, kind }) => (
            <Drop key={name} field={name} kind={kind} file={files[name]} take={(file) => take({ ...files, [name]: file })} />
          ))}
          {shown.map(({ name, kind }) => (
            <p key={name}>
              <label for={`field-${name}`}>
                {name} {kind === "categories" && <small>{say("several")}</small>}
              </label>
              <input
                id={`field-${name}`}
                type="text"
                inputMode={kind === "number" ? "decimal" : "text"}
                value={typed[name] ?? ""}
                onInput={(event) => type({ ...typed, [name]: event.currentTarget.value })}
              />
            </p>
          ))}
          <button disabled={busy}>{say("look")}</button>
        </form>
        <section aria-labelledby="preview" aria-live="polite" aria-busy={busy}>
          <h2 id="preview">{say("preview")}</h2>
          {fault && <Fault fault={fault} />}
          {!preview && !fault && <p class="note">{say("savedNothing")}</p>}
          {preview && !preview.recommendable && <p class="note">{say("nothingSays")}</p>}
          {preview?.recommendable && (
            <>
              <Fitting people={preview} />
              <h3>{say("near")}</h3>
              <ul class="plain">
                {preview.neighbours.map((each) => (
                  <li key={each.item}>
                    <ItemLine item={each} after={<span class="number">{each.score.toFixed(2)}</span>} />
                  </li>
                ))}
              </ul>
              <form
                onSubmit={(event) => {
                  event.preventDefault();
                  void keep();
                }}
              >
                <label for="new-key">{say("keyOfItem")}</label>
                <div class="beside">
                  <input id="new-key" required value={name} onInput={(event) => call(event.currentTarget.value)} />
                  <button disabled={busy}>{say("save")}</button>
                </div>
              </form>
              {saved && <p role="status">{say("saved")} <a href={itemLink(saved)}>{saved}</a></p>}
            </>
          )}
        </section>
      </div>
    </>
  );
}
