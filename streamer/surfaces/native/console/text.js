/**
 * Texts as the console shows them. Pure: no page, no clock.
 *
 * Names, titles and reasons are written by players and backends. Characters that cannot
 * be seen, or that change the order of others, are shown by their code instead.
 */

const HIDDEN = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Co}\p{Cs}\p{Cn}\u115f\u1160\u3164\uffa0]/u;
const PLAIN = /[\t\n]/;
/** Joiners and variation selectors of emoji and of scripts that need them. */
const JOINERS = /[\u200c\u200d]/;
export const SHOWN_MAX = 2_000;

/**
 * Split a text into what is shown as it is and what is shown by its code.
 *
 * @param {unknown} value
 * @returns {{text: string, code?: string}[]} `code` is such as `U+202E`.
 */
export function parts(value) {
  const whole = String(value ?? "");
  const text = whole.slice(0, SHOWN_MAX);
  const found = [];
  let plain = "";
  const flush = () => {
    if (plain) found.push({ text: plain });
    plain = "";
  };
  const characters = [...text];
  characters.forEach((char, i) => {
    const joins = JOINERS.test(char) && i > 0 && /[\p{L}\p{M}\p{Emoji}\ufe0f]/u.test(characters[i - 1]);
    if (!HIDDEN.test(char) || PLAIN.test(char) || joins) {
      plain += char;
      return;
    }
    flush();
    const point = char.codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
    found.push({ text: char, code: `U+${point}` });
  });
  flush();
  if (whole.length > SHOWN_MAX) found.push({ text: "", code: `+${whole.length - SHOWN_MAX}` });
  return found;
}

/** The same as one string, for attributes and titles. */
export function visible(value) {
  return parts(value)
    .map((it) => (it.code ? `\u27e8${it.code}\u27e9` : it.text))
    .join("");
}

/** @param {number | null | undefined} value */
export function number(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (value !== 0 && Math.abs(value) < 10 && !Number.isInteger(value)) return value.toFixed(1);
  return Math.round(value).toLocaleString("en");
}

/** A number with its noun: `1 process`, `2 processes`. */
export function counted(value, one, many = `${one}s`) {
  return `${number(value)} ${value === 1 ? one : many}`;
}

/** @param {number} value */
export function bytes(value) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${unit && value < 100 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}

/** A duration in seconds, as `2.5 ms`, `14 s` or `3 h 20 min`. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return "–";
  if (seconds < 1) return `${+(seconds * 1000).toPrecision(2)} ms`;
  if (seconds < 60) return `${+seconds.toPrecision(2)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
}

/** How long before `now` a time is, as `12 s ago` or `in 3 min`. */
export function ago(time, now) {
  const at = typeof time === "number" ? time : Date.parse(time);
  if (Number.isNaN(at)) return "–";
  const seconds = Math.round((now - at) / 1000);
  if (Math.abs(seconds) < 2) return "now";
  if (seconds > 0) return seconds < 172_800 ? `${duration(seconds)} ago` : `${Math.round(seconds / 86_400)} d ago`;
  return -seconds < 172_800 ? `in ${duration(-seconds)}` : `in ${Math.round(-seconds / 86_400)} d`;
}

/** A time of RFC 3339 as `12:03:04.120`, with the day where it is not today's. */
export function clock(time, now) {
  const at = new Date(time);
  if (Number.isNaN(at.getTime())) return "–";
  const two = (n, width = 2) => String(n).padStart(width, "0");
  const day = (it) => `${it.getFullYear()}-${two(it.getMonth() + 1)}-${two(it.getDate())}`;
  const text = `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}.${two(at.getMilliseconds(), 3)}`;
  return day(at) === day(new Date(now)) ? text : `${day(at)} ${text}`;
}
