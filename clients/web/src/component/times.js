/**
 * Times as people say them: "5 min. ago".
 *
 * @module
 */

/** @type {[Intl.RelativeTimeFormatUnit, number][]} */
const UNITS = [
  ["year", 31_536_000],
  ["month", 2_592_000],
  ["week", 604_800],
  ["day", 86_400],
  ["hour", 3_600],
  ["minute", 60],
];

/**
 * @param {string} time RFC 3339.
 * @param {number} now Unix time in milliseconds.
 * @param {string | undefined} language A BCP 47 tag; that of the browser by default.
 * @returns {string} Empty if the time cannot be read.
 */
export function relativeTime(time, now, language) {
  const seconds = (Date.parse(time) - now) / 1000;
  if (Number.isNaN(seconds)) return "";
  const format = new Intl.RelativeTimeFormat(language, {
    numeric: "auto",
    style: "short",
  });
  for (const [unit, length] of UNITS) {
    // A clock that is a little behind must not say "in 2 seconds".
    if (-seconds >= length) return format.format(Math.ceil(seconds / length), unit);
  }
  return format.format(0, "second");
}

/**
 * @param {string} time RFC 3339.
 * @param {string | undefined} language
 * @returns {string} Date and time in full.
 */
export function fullTime(time, language) {
  const date = new Date(time);
  if (Number.isNaN(date.getTime())) return "";
  return new Intl.DateTimeFormat(language, {
    dateStyle: "medium",
    timeStyle: "short",
  }).format(date);
}
