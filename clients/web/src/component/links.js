/**
 * Links in notifications. Other people wrote them, so most schemes are refused.
 *
 * @module
 */

const SCHEMES = new Set(["http:", "https:"]);

/**
 * @param {unknown} url
 * @param {string} base The address of the page.
 * @returns {URL | null} Where the link leads; `null` if it is not a link to a page, such
 *   as `javascript:` and `data:`, or cannot be read.
 */
export function safeLink(url, base) {
  if (typeof url !== "string" || url === "") return null;
  try {
    const link = new URL(url, base);
    return SCHEMES.has(link.protocol) ? link : null;
  } catch {
    return null;
  }
}
