import { useEffect, useRef, useState } from "preact/hooks";
import * as api from "../api";
import { Fault, FindItem, itemLink, useAbout } from "../parts";
import { useWords, whole } from "../words";

// Told apart also by people who see few colours; what has no colour of its own is grey.
const COLOURS = ["#c1502e", "#2f7f86", "#b58a1b", "#5b6fb5", "#8a4f7d", "#5d8a3a", "#a3663a", "#3a6ea5"];
const MOST = 6000;

interface View {
  x: number;
  y: number;
  width: number;
}
const ALL: View = { x: 0.5, y: 0.5, width: 1.08 };

export function MapScreen({ of }: { of: string }) {
  const { say } = useWords();
  const about = useAbout();
  const canvas = useRef<HTMLCanvasElement>(null);
  const [view, look] = useState<View>(ALL);
  const [found, put] = useState<api.Points | null>(null);
  const [marked, mark] = useState<api.Points["points"][number] | null>(null);
  const [fault, fail] = useState<api.Refused | null>(null);
  const [hover, point] = useState<api.Points["points"][number] | null>(null);
  const [size, resize] = useState<[number, number]>([800, 520]);
  const drag = useRef<{ x: number; y: number; view: View; far: boolean } | null>(null);
  // Both axes fill the canvas: nearness has no direction here.
  const height = view.width;

  useEffect(() => {
    const watch = new ResizeObserver(([entry]) => entry && resize([entry.contentRect.width, entry.contentRect.height]));
    watch.observe(canvas.current!);
    return () => watch.disconnect();
  }, []);

  // The points of the view, and half a view around it so that a small move needs nothing.
  useEffect(() => {
    const stop = new AbortController();
    const timer = setTimeout(() => {
      const path = api.query("/v1/items/map", {
        left: view.x - view.width,
        right: view.x + view.width,
        top: view.y - height,
        bottom: view.y + height,
        limit: MOST,
      });
      api.get<api.Points>(path, stop.signal).then(
        (points) => {
          put(points);
          fail(null);
        },
        (error) => error.name !== "AbortError" && fail(error),
      );
    }, found ? 120 : 0);
    return () => {
      clearTimeout(timer);
      stop.abort();
    };
  }, [view, size[0] > 0]);

  const go = (item: string) =>
    api.get<api.Points>(api.query("/v1/items/map", { item })).then((points) => {
      const its = points.points[0];
      if (!its) return;
      mark(its);
      look({ x: its.x, y: its.y, width: Math.min(view.width, 0.15) });
    }, fail);
  useEffect(() => void (of && go(of)), [of]);

  const screen = (x: number, y: number): [number, number] => [
    ((x - view.x) / view.width + 0.5) * size[0],
    ((y - view.y) / height + 0.5) * size[1],
  ];
  const inView = (found?.points ?? []).filter(
    (each) => Math.abs(each.x - view.x) <= view.width / 2 && Math.abs(each.y - view.y) <= height / 2,
  );
  const nearest = (x: number, y: number, within: number) => {
    let [best, distance] = [null as api.Points["points"][number] | null, within * within];
    for (const each of inView) {
      const [px, py] = screen(each.x, each.y);
      const d = (px - x) ** 2 + (py - y) ** 2;
      if (d < distance) [best, distance] = [each, d];
    }
    return best;
  };
  const middle = nearest(size[0] / 2, size[1] / 2, size[0]);

  useEffect(() => {
    const paper = canvas.current!;
    const dense = window.devicePixelRatio || 1;
    [paper.width, paper.height] = [size[0] * dense, size[1] * dense];
    const pen = paper.getContext("2d")!;
    pen.scale(dense, dense);
    const style = getComputedStyle(paper);
    const [ink, grey, ground] = ["--ink", "--faint", "--paper"].map((name) => style.getPropertyValue(name).trim() || "#888");
    const radius = Math.min(7, Math.max(1.6, 1.6 + Math.log2(ALL.width / view.width) * 0.8 + (inView.length < 400 ? 2 : 0)));
    for (const each of inView) {
      const [x, y] = screen(each.x, each.y);
      const colour = each.label >= 0 && each.label < COLOURS.length ? COLOURS[each.label]! : grey!;
      pen.beginPath();
      pen.arc(x, y, radius, 0, 7);
      if (each.new) {
        pen.strokeStyle = colour;
        pen.lineWidth = Math.max(1.2, radius / 2.5);
        pen.stroke();
      } else {
        pen.fillStyle = colour;
        pen.globalAlpha = 0.82;
        pen.fill();
        pen.globalAlpha = 1;
      }
    }
    // Titles where there is room for them.
    pen.font = `12px ${style.fontFamily}`;
    pen.textBaseline = "middle";
    const taken: [number, number, number][] = [];
    const written = (each: api.Points["points"][number], always = false) => {
      if (!each.title) return;
      const [x, y] = screen(each.x, each.y);
      const title = each.title.length > 24 ? `${each.title.slice(0, 23)}…` : each.title;
      const long = pen.measureText(title).width;
      const start = x + radius + 4 + long > size[0] ? x - radius - 4 - long : x + radius + 4;
      const hidden = taken.some(([from, to, at]) => Math.abs(at - y) < 16 && start < to + 6 && from < start + long + 6);
      if (hidden && !always) return;
      taken.push([start, start + long, y]);
      pen.lineWidth = 3;
      pen.strokeStyle = ground!;
      pen.strokeText(title, start, y);
      pen.fillStyle = ink!;
      pen.fillText(title, start, y);
    };
    for (const each of [hover, marked]) {
      if (!each) continue;
      const [x, y] = screen(each.x, each.y);
      pen.beginPath();
      pen.arc(x, y, radius + 5, 0, 7);
      pen.strokeStyle = ink!;
      pen.lineWidth = 1.5;
      pen.stroke();
      written(each, true);
    }
    if (inView.length <= 400) for (const each of inView) written(each);
  });

  const zoom = (factor: number, x = size[0] / 2, y = size[1] / 2) => {
    const width = Math.min(ALL.width, Math.max(0.002, view.width * factor));
    const real = width / view.width;
    const [fx, fy] = [(x / size[0] - 0.5) * view.width, (y / size[1] - 0.5) * height];
    look({ x: view.x + fx * (1 - real), y: view.y + fy * (1 - real), width });
  };
  const open = (each: api.Points["points"][number] | null) => each && (location.hash = itemLink(each.item));
  const pressed = (event: KeyboardEvent) => {
    const step = view.width / 10;
    const moves: Record<string, () => void> = {
      ArrowLeft: () => look({ ...view, x: view.x - step }),
      ArrowRight: () => look({ ...view, x: view.x + step }),
      ArrowUp: () => look({ ...view, y: view.y - step }),
      ArrowDown: () => look({ ...view, y: view.y + step }),
      "+": () => zoom(0.7),
      "=": () => zoom(0.7),
      "-": () => zoom(1.4),
      "0": () => look(ALL),
      Enter: () => open(middle),
    };
    const move = moves[event.key];
    if (move) {
      event.preventDefault();
      move();
    }
  };
  const wheel = useRef(zoom);
  wheel.current = zoom;
  useEffect(() => {
    const turned = (event: WheelEvent) => {
      event.preventDefault();
      wheel.current(Math.exp(event.deltaY / 500), event.offsetX, event.offsetY);
    };
    const paper = canvas.current!;
    paper.addEventListener("wheel", turned, { passive: false });
    return () => paper.removeEventListener("wheel", turned);
  }, []);

  return (
    <>
      <p class="lead">{say("leadMap")}</p>
      {fault && <Fault fault={fault} />}
      <div class="beside">
        <FindItem label={say("mapFind")} choose={(item) => void go(item.item)} />
        <div class="zoom">
          <button class="quiet" onClick={() => zoom(0.6)} aria-label={say("zoomIn")}>+</button>
          <button class="quiet" onClick={() => zoom(1.6)} aria-label={say("zoomOut")}>−</button>
          <button class="quiet" onClick={() => look(ALL)}>{say("zoomAll")}</button>
        </div>
      </div>
      <canvas
        ref={canvas}
        class="map"
        tabIndex={0}
        role="application"
        aria-label={say("map")}
        aria-describedby="map-help map-state"
        onKeyDown={pressed}
        onPointerDown={(event) => {
          event.currentTarget.setPointerCapture(event.pointerId);
          drag.current = { x: event.offsetX, y: event.offsetY, view, far: false };
        }}
        onPointerMove={(event) => {
          const from = drag.current;
          if (!from) return point(nearest(event.offsetX, event.offsetY, 14));
          const [dx, dy] = [event.offsetX - from.x, event.offsetY - from.y];
          if (Math.abs(dx) + Math.abs(dy) > 4) from.far = true;
          if (from.far) look({ ...from.view, x: from.view.x - (dx / size[0]) * view.width, y: from.view.y - (dy / size[1]) * height });
        }}
        onPointerUp={(event) => {
          const from = drag.current;
          drag.current = null;
          if (from && !from.far) open(nearest(event.offsetX, event.offsetY, 14));
        }}
        onPointerCancel={() => (drag.current = null)}
      />
      <p id="map-help" class="note">{say("mapHelp")}</p>
      <p id="map-state" class="note" role="status">
        {found && say(found.total > found.points.length ? "someShown" : "allShown", { shown: whole(inView.length) })}
        {middle && <> · {say("inMiddle")}: <a href={itemLink(middle.item)}>{middle.title ?? middle.item}</a></>}
      </p>
      {about.label && found && found.labels.length > 0 && (
        <>
          <h2>{say("legend")}</h2>
          <ul class="legend">
            {found.labels.slice(0, COLOURS.length).map((label, n) => (
              <li key={label}><i style={{ background: COLOURS[n] }} />{label}</li>
            ))}
            {found.labels.length > COLOURS.length && <li><i class="rest" />{say("allOthers")}</li>}
          </ul>
        </>
      )}
    </>
  );
}
