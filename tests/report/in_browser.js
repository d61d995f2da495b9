"use strict";
// Runs in a page, in a frame of the width to be looked at, and tells the page around it what is wrong.
addEventListener("load", function () {
  const found = [];
  const root = document.documentElement;
  const name = function (element) { return element.tagName + " " + (element.textContent || "").trim().slice(0, 40); };

  document.querySelectorAll("details").forEach(function (part) { part.open = true; });
  if (root.scrollWidth > root.clientWidth) found.push("the page is " + root.scrollWidth + " pixels wide");
  document.querySelectorAll("main *").forEach(function (element) {
    const cut = element.getBoundingClientRect().right > root.clientWidth + 1;
    if (cut && !element.closest(".frame *")) found.push("cut off: " + name(element));
  });

  const shown = Array.from(document.querySelectorAll("body *")).filter(function (element) {
    const own = Array.from(element.childNodes).some(function (node) { return node.nodeType === 3 && node.data.trim(); });
    return own && element.tagName !== "SCRIPT";
  });
  const sizes = shown.map(function (element) {
    const scale = element.getScreenCTM && element.tagName === "text" ? element.getScreenCTM() : { a: 1, b: 0 };
    return parseFloat(getComputedStyle(element).fontSize) * Math.hypot(scale.a, scale.b);
  });
  shown.forEach(function (element, i) {
    if (9.95 > sizes[i]) found.push("letters of " + sizes[i].toFixed(1) + " pixels: " + name(element));
  });

  const frames = Array.from(document.querySelectorAll(".frame"));
  const wide = frames.filter(function (frame) { return frame.scrollWidth > frame.clientWidth + 1; });
  wide.forEach(function (frame) {
    if (frame.tabIndex !== 0) found.push("out of reach of the keyboard: " + name(frame));
  });

  const heading = document.querySelector(".comparison thead tr").cells[1];
  const column = function () {
    return Array.from(document.querySelectorAll(".comparison tbody tr")).map(function (row) {
      return row.cells[1].textContent;
    });
  };
  const before = column();
  heading.querySelector("button").click();
  const rising = column();
  heading.querySelector("button").click();
  const falling = column();

  document.querySelectorAll("svg").forEach(function (svg) { svg.replaceChildren(); }); // an image, by its role
  const rules = { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"] };
  const looked = window.axe ? window.axe.run(document, rules) : Promise.resolve({ violations: [], passes: [] });
  looked.then(function (result) {
    result.violations.forEach(function (rule) {
      if (["serious", "critical"].includes(rule.impact)) {
        found.push(rule.id + ": " + rule.nodes.map(function (node) { return node.html.slice(0, 120); }).join(" "));
      }
    });
    return result.passes.length;
  }).catch(function (error) { found.push(String(error)); }).then(function (passes) {
    parent.postMessage({
      width: innerWidth, dark: matchMedia("(prefers-color-scheme: dark)").matches, found: found, passes: passes,
      smallest: Math.min.apply(null, sizes), wide: wide.length, orders: [before, rising, falling],
    }, "*");
  });
});
