/** Charts of the last hour, drawn as SVG. */

import { fill, h, s } from "./dom.js";

const WIDTH = 320;
const HEIGHT = 84;

/**
 * Draw a chart into an element.
 *
 * @param {HTMLElement} place
 * @param {object} chart
 * @param {string} chart.title
 * @param {string} chart.now The present value, as text.
 * @param {[string, (number | null | undefined)[]][]} chart.lines A name and values, one
 *   for each slot, `null` where there is none.
 * @param {(value: number) => string} chart.format
 */
export function draw(place, { title, now, lines, format }) {
  const values = lines.flatMap(([, line]) => line).filter((it) => it !== null && it !== undefined);
  // Room above the peak: a constant is not at the edge.
  const top = Math.max(...values, 0) * 1.15 || 1;
  const count = lines[0]?.[1].length ?? 0;
  const x = (i) => (count > 1 ? (i / (count - 1)) * WIDTH : 0);
  const y = (value) => HEIGHT - 4 - (value / top) * (HEIGHT - 10);
  const path = (line) => {
    let text = "";
    let isOpen = false;
    line.forEach((value, i) => {
      if (value === null || value === undefined) isOpen = false;
      else {
        text += `${isOpen ? "L" : "M"}${x(i).toFixed(1)} ${y(value).toFixed(1)}`;
        // A value with none beside it is still seen.
        if (!isOpen && (line[i + 1] === null || line[i + 1] === undefined)) text += "h.1";
        isOpen = true;
      }
    });
    return text;
  };
  const peak = values.length ? format(Math.max(...values)) : "nothing yet";
  fill(
    place,
    h("h2", {}, title),
    h("p.now", {}, now),
    s(
      "svg",
      {
        viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
        preserveAspectRatio: "none",
        role: "img",
        "aria-label": `${title}: now ${now}; highest within the last hour ${peak}`,
      },
      s("line.axis", { x1: 0, x2: WIDTH, y1: HEIGHT - 4, y2: HEIGHT - 4 }),
      lines.map(([, line], i) => s(`path.line.line-${i}`, { d: path(line) || "M0 0" })),
    ),
    h("p.scale", {}, h("span", {}, "1 h ago"), h("span", {}, `peak ${peak}`), h("span", {}, "now")),
    lines.length > 1 &&
      h("ul.legend", {}, lines.map(([name], i) => h(`li.line-${i}`, {}, name))),
  );
}
