"use strict";
(function () {
  function value(row, column) {
    return row.cells[column].textContent.trim();
  }

  function number(text) {
    return parseFloat(text.replace(/,/g, ""));
  }

  function ordered(rows, column, falling) {
    const known = rows.filter(function (row) { return value(row, column) !== "-"; });
    const numeric = known.every(function (row) { return isFinite(number(value(row, column))); });
    known.sort(function (a, b) {
      const first = value(a, column), second = value(b, column);
      const sign = numeric ? number(first) - number(second) : first.localeCompare(second, "en", { numeric: true });
      return falling ? -sign : sign;
    });
    return known.concat(rows.filter(function (row) { return !known.includes(row); }));
  }

  function sort(table, heading, column) {
    const falling = heading.getAttribute("aria-sort") === "ascending";
    table.querySelectorAll("th[aria-sort]").forEach(function (other) { other.removeAttribute("aria-sort"); });
    heading.setAttribute("aria-sort", falling ? "descending" : "ascending");
    const body = table.tBodies[0];
    ordered(Array.from(body.rows), column, falling).forEach(function (row) { body.append(row); });
  }

  document.querySelectorAll("table").forEach(function (table) {
    Array.from(table.tHead.rows[0].cells).forEach(function (heading, column) {
      const button = document.createElement("button");
      button.type = "button";
      button.append.apply(button, Array.from(heading.childNodes));
      button.addEventListener("click", function () { sort(table, heading, column); });
      heading.append(button);
    });
  });

  function reachable() {
    document.querySelectorAll(".frame").forEach(function (frame) {
      const wide = frame.scrollWidth > frame.clientWidth + 1;
      frame.tabIndex = wide ? 0 : -1;
      if (wide) {
        frame.setAttribute("role", "group");
        frame.setAttribute("aria-label", frame.closest("section").querySelector("h2").textContent + ", scrolls sideways");
      } else {
        frame.removeAttribute("tabindex");
        frame.removeAttribute("role");
        frame.removeAttribute("aria-label");
      }
    });
  }

  const closed = [];
  addEventListener("beforeprint", function () {
    document.querySelectorAll("details:not([open])").forEach(function (part) {
      part.open = true;
      closed.push(part);
    });
  });
  addEventListener("afterprint", function () {
    closed.splice(0).forEach(function (part) { part.open = false; });
  });
  addEventListener("resize", reachable);
  document.addEventListener("toggle", reachable, true);
  reachable();
})();
