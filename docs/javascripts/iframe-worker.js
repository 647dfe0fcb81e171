// Search in a site that is opened from a folder. Browsers start no worker from a file, so the theme's search worker runs
// in a hidden frame, which answers as a worker does. Loaded by mkdocs.yml (extra.polyfills, plugin offline).
class IFrameWorker extends EventTarget {
  constructor(url) {
    super();
    this.onmessage = null;
    this.waiting = []; // what was posted before the script has run
    const frame = (this.frame = document.createElement("iframe"));
    frame.hidden = true;
    document.body.append(frame);
    const inside = (this.inside = frame.contentWindow);
    const load = (source) =>
      new Promise((resolve, reject) => {
        const script = frame.contentDocument.createElement("script");
        Object.assign(script, { src: source, onload: resolve, onerror: reject });
        frame.contentDocument.body.append(script);
      });
    inside.postMessage = (data) => {
      const event = new MessageEvent("message", { data });
      this.onmessage?.(event);
      this.dispatchEvent(event);
    };
    inside.importScripts = (...urls) => urls.reduce((before, source) => before.then(() => load(source)), Promise.resolve());
    load(url).then(() => {
      const waiting = this.waiting;
      this.waiting = null;
      waiting.forEach((data) => this.postMessage(data));
    });
  }

  postMessage(data) {
    if (this.waiting) this.waiting.push(data);
    else this.inside.dispatchEvent(new MessageEvent("message", { data }));
  }

  terminate() {
    this.frame.remove();
  }
}

if (location.protocol === "file:") {
  window.IFrameWorker = IFrameWorker; // the theme's worker looks for it in its parent
  window.Worker = IFrameWorker;
}
