"use strict";
const number = (text) => { const found = text.replace(/,/g, "").match(/^[-+]?\d+(\.\d+)?(?=$| (±|of) )/); return found ? parseFloat(found[0]) : NaN; };
function sort(table, column, header) {
  const body = table.tBodies[0], rows = [...body.rows];
  const descending = header.getAttribute("aria-sort") === "ascending";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", descending ? "descending" : "ascending");
  const text = (row) => row.cells[column].textContent.trim();
  const numeric = rows.every((row) => !text(row) || !isNaN(number(text(row))));
  const order = (one, other) => {
    if (!text(one) || !text(other)) return (text(one) ? 0 : 1) - (text(other) ? 0 : 1);
    const difference = numeric ? number(text(one)) - number(text(other)) : text(one).localeCompare(text(other));
    return descending ? -difference : difference;
  };
  body.append(...rows.sort(order));
}
for (const table of document.querySelectorAll("table.sortable")) {
  [...table.tHead.rows[0].cells].forEach((header, column) => {
    header.querySelector("button").addEventListener("click", () => sort(table, column, header));
  });
}
const dialog = document.getElementById("enlarged");
for (const button of document.querySelectorAll(".zoom")) {
  button.addEventListener("click", () => {
    dialog.querySelector("div").replaceChildren(button.firstElementChild.cloneNode(true));
    dialog.showModal();
  });
}
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
document.getElementById("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
});
