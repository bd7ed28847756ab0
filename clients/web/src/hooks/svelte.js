/**
 * Stores for Svelte 4 and 5: `$notifications`, `$unread`, `$status` in a component.
 *
 * @module
 */

import { derived, readable } from "svelte/store";
import { InboxStore } from "../store.js";

/** @import { StreamerClient } from "../index.js" */
/** @import { StoreOptions } from "../store.js" */

/**
 * Follow an inbox while a component subscribes to one of the results. A store that was
 * passed in goes on after that.
 *
 * @param {InboxStore | StreamerClient} source A store, or a client to make one for.
 * @param {StoreOptions} [options] With a client.
 */
export function inboxStores(source, options) {
  const isOwn = !(source instanceof InboxStore);
  const store = isOwn ? new InboxStore(source, options) : source;
  const snapshot = readable(store.getSnapshot(), (set) => {
    store.start();
    set(store.getSnapshot());
    const end = store.subscribe(() => set(store.getSnapshot()));
    return () => {
      end();
      if (isOwn) store.stop();
    };
  });
  return {
    store,
    snapshot,
    notifications: derived(snapshot, (it) => it.notifications),
    unread: derived(snapshot, (it) => it.unread),
    status: derived(snapshot, (it) => it.status),
  };
}
