/**
 * Hooks for React 18 and later.
 *
 * The state is that of an `InboxStore`; a component draws again only when the part that
 * it uses has changed.
 *
 * @module
 */

import { createContext, createElement, useContext, useEffect, useMemo, useSyncExternalStore } from "react";
import { InboxStore } from "../store.js";

/** @import { StreamerClient } from "../index.js" */
/** @import { Snapshot, StoreOptions } from "../store.js" */
/** @import { Notification } from "../types.js" */

const Context = createContext(/** @type {InboxStore | null} */ (null));

/**
 * Gives a store to the hooks below it: the one in `store`, or one of its own for
 * `client`, which lives as long as the component does. It does not close the client.
 *
 * @param {{store?: InboxStore, client?: StreamerClient, options?: StoreOptions, children?: any}} props
 */
export function InboxProvider({ store, client, options, children }) {
  const own = useMemo(
    () => store ?? (client ? new InboxStore(client, options) : null),
    // The options are those of the first rendering, as an object literal would differ.
    [store, client],
  );
  useEffect(() => {
    own?.start();
    return () => {
      if (own !== store) own?.stop();
    };
  }, [own, store]);
  return createElement(Context.Provider, { value: own }, children);
}

/**
 * @returns {InboxStore} The store of the nearest `InboxProvider`: its methods mark, load
 *   and filter.
 */
export function useInbox() {
  const store = useContext(Context);
  if (!store) throw new Error("use this hook below <InboxProvider client={client}>");
  return store;
}

/**
 * @template T
 * @param {(snapshot: Snapshot) => T} select Returns a part of the snapshot, the same
 *   object while it has not changed.
 * @returns {T}
 */
export function useInboxState(select) {
  const store = useInbox();
  const read = () => select(store.getSnapshot());
  return useSyncExternalStore(store.subscribe, read, read);
}

/** @returns {readonly Notification[]} Newest first. */
export function useNotifications() {
  return useInboxState((it) => it.notifications);
}

/** @returns {number} Unread notifications in the whole inbox. */
export function useUnread() {
  return useInboxState((it) => it.unread);
}

/** @returns {Snapshot["status"]} What the connection does. */
export function useStatus() {
  return useInboxState((it) => it.status);
}

/**
 * Call `listener` with each notification that arrives, for toasts and sounds.
 *
 * @param {(notification: Notification) => void} listener
 */
export function useArrival(listener) {
  const store = useInbox();
  useEffect(() => store.onArrival(listener), [store, listener]);
}
