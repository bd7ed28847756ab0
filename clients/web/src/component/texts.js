/**
 * The texts of `<streamer-inbox>`, in English. A page replaces any of them with the
 * property `texts`.
 *
 * @module
 */

/**
 * @typedef {object} Texts
 * @property {string} title The heading of the popover.
 * @property {(unread: number) => string} bell The name of the bell, for screen readers.
 * @property {string} all The tab with everything.
 * @property {string} unread The tab with what is not read.
 * @property {string} markAll
 * @property {string} markRead
 * @property {string} markUnread
 * @property {string} remove
 * @property {string} more
 * @property {string} loading
 * @property {string} empty
 * @property {string} emptyHint
 * @property {string} emptyUnread
 * @property {string} emptyUnreadHint
 * @property {string} offline
 * @property {string} reconnecting
 * @property {string} stopped
 * @property {string} loadFailed
 * @property {string} changeFailed
 * @property {string} retry
 * @property {string} close
 * @property {string} dismiss Closes a toast.
 * @property {string} untitled Stands for a notification without title and body.
 * @property {(topic: string) => string} topic What a topic is called.
 * @property {string} everyone Where a notification to everyone comes from.
 * @property {string} isUnread Said of an unread notification, for screen readers.
 */

/** @type {Readonly<Texts>} */
export const TEXTS = Object.freeze({
  title: "Notifications",
  bell: (unread) => (unread > 0 ? `Notifications, ${unread} unread` : "Notifications"),
  all: "All",
  unread: "Unread",
  markAll: "Mark all as read",
  markRead: "Mark as read",
  markUnread: "Mark as unread",
  remove: "Delete",
  more: "Load more",
  loading: "Loading notifications",
  empty: "No notifications yet",
  emptyHint: "When something happens, it appears here.",
  emptyUnread: "All caught up",
  emptyUnreadHint: "There is nothing left to read.",
  offline: "You are offline. What you mark is sent later.",
  reconnecting: "Connection lost. Reconnecting…",
  stopped: "Notifications are paused. Sign in again to continue.",
  loadFailed: "Notifications could not be loaded.",
  changeFailed: "The change could not be saved.",
  retry: "Try again",
  close: "Close",
  dismiss: "Dismiss",
  untitled: "New notification",
  topic: (topic) => topic,
  everyone: "Everyone",
  isUnread: "Unread",
});
