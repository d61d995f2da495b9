"use strict";
// Search runs in a worker, which browsers refuse to pages that are opened as files: there it runs in a hidden frame.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.append(frame);
      const inner = frame.contentWindow;
      inner.document.open();
      inner.postMessage = (data) => this.answer(data);
      inner.importScripts = (...urls) => Promise.all(urls.map((one) => this.load(inner, one)));
      inner.document.write(`<!DOCTYPE html><script src="${new URL(url, location)}"></scr` + "ipt>");
      inner.document.close();
      this.inner = inner;
    }

    postMessage(data) {
      const tell = () => this.inner.dispatchEvent(new this.inner.MessageEvent("message", { data }));
      if (this.inner.document.readyState === "complete") tell();
      else this.inner.addEventListener("load", tell);
    }

    answer(data) {
      const event = new MessageEvent("message", { data });
      this.dispatchEvent(event);
      if (this.onmessage) this.onmessage(event);
    }

    load(inner, url) {
      return new Promise((done, failed) => {
        const script = inner.document.createElement("script");
        Object.assign(script, { src: new URL(url, location), onload: done, onerror: failed });
        inner.document.head.append(script);
      });
    }
  };
}
