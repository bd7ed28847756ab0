/**
 * Watch what a browser tells a page of its network and of itself.
 *
 * @param {AbortSignal} signal Ends the watching.
 * @param {object} handlers
 * @param {() => void} handlers.onNetwork There is a network, perhaps another one.
 * @param {() => void} handlers.onOffline
 * @param {() => void} handlers.onVisible The page is seen, or runs again.
 * @param {() => void} handlers.onHide The page may be kept in the back/forward cache,
 *   which an open connection would prevent.
 * @param {() => void} handlers.onShow It has come back from there.
 */
export function watchPage(signal, { onNetwork, onOffline, onVisible, onHide, onShow }) {
  const { document } = globalThis;
  /**
   * @param {EventTarget | undefined} target
   * @param {string} type
   * @param {() => void} handler
   */
  const listen = (target, type, handler) =>
    target?.addEventListener?.(type, handler, { signal });
  listen(globalThis, "online", onNetwork);
  listen(globalThis, "offline", onOffline);
  listen(globalThis, "pagehide", onHide);
  listen(globalThis, "pageshow", onShow);
  listen(document, "resume", onVisible);
  listen(document, "visibilitychange", () => {
    if (document.visibilityState === "visible") onVisible();
  });
}
