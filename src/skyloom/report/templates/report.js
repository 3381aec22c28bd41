// Tables: a heading that is clicked, or chosen by the keyboard, sorts all rows; numbers by value, words by the
// alphabet, unknown last. Of long tables only a part is in the page at a time; the rest waits in a template.
const STEP = 200;
document.querySelectorAll("table.sortable").forEach((table) => {
  const headings = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  const waiting = table.parentElement.querySelector("template");
  const key = (row, column) => {
    const cell = row.cells[column];
    if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
    return cell.textContent === "\u2013" ? NaN : cell.textContent;
  };
  const compare = (a, b) => {
    const unknown = Number(Number.isNaN(a)) - Number(Number.isNaN(b));
    if (unknown) return { last: unknown };
    const numbers = typeof a === "number" && typeof b === "number";
    return { order: numbers ? a - b : String(a).localeCompare(String(b), undefined, { numeric: true }) };
  };
  let shown = body.rows.length;
  const more = document.createElement("button");
  const place = (rows) => {
    body.replaceChildren(...rows.slice(0, shown));
    if (!waiting) return;
    waiting.content.replaceChildren(...rows.slice(shown));
    more.textContent = `${Math.min(shown, rows.length)} of ${rows.length} rows: show more`;
    more.hidden = shown >= rows.length;
  };
  const all = () => [...body.rows, ...(waiting ? waiting.content.children : [])];
  const sort = (heading, column) => {
    const down = heading.getAttribute("aria-sort") === "ascending";
    headings.forEach((other) => other.removeAttribute("aria-sort"));
    heading.setAttribute("aria-sort", down ? "descending" : "ascending");
    const rows = all().map((row) => ({ row, value: key(row, column) }));
    rows.sort((a, b) => {
      const result = compare(a.value, b.value);
      return result.last || (down ? -1 : 1) * (result.order || 0);
    });
    place(rows.map((item) => item.row));
  };
  headings.forEach((heading, column) => {
    heading.addEventListener("click", () => sort(heading, column));
    heading.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); sort(heading, column); }
    });
  });
  if (waiting) {
    more.type = "button";
    more.className = "more";
    more.addEventListener("click", () => { shown += STEP; place(all()); });
    table.parentElement.after(more);
    place(all());
  }
});
// Text to copy, also where a page from a disk may not use the clipboard: it is selected then.
document.querySelectorAll("button.copy").forEach((button) => {
  button.addEventListener("click", () => {
    const source = document.getElementById(button.dataset.copies);
    getSelection().selectAllChildren(source);
    const done = () => { button.textContent = "copied"; };
    if (navigator.clipboard) navigator.clipboard.writeText(source.textContent).then(done, () => document.execCommand("copy") && done());
    else if (document.execCommand("copy")) done();
  });
});
// What is folded away is printed, too.
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((part) => { part.open = true; }));
