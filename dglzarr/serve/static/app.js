"use strict";
// Without this file every page works; it adds sorting, suggestions while typing, and reloading.

function sortable(table) {
  table.querySelectorAll("thead th").forEach((head, column) => {
    if ("unsorted" in head.dataset || !head.textContent.trim()) return;
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      table.querySelectorAll("thead th").forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const value = (row) => {
        const cell = row.cells[column];
        const text = "v" in cell.dataset ? cell.dataset.v : cell.textContent.trim();
        const number = Number(text);
        return text !== "" && !Number.isNaN(number) ? number : text === "None" ? "" : text;
      };
      const rows = Array.from(table.tBodies[0].rows);
      rows.sort((a, b) => {
        const x = value(a);
        const y = value(b);
        if (x === "" || y === "") return (x === "") - (y === ""); // unknown ones come last
        const order = typeof x === "number" && typeof y === "number"
          ? x - y : String(x).localeCompare(String(y), undefined, { numeric: true });
        return down ? -order : order;
      });
      table.tBodies[0].append(...rows);
    });
  });
}

function suggesting(input) {
  const list = document.createElement("ul");
  list.className = "hits";
  list.id = "hits";
  list.hidden = true;
  list.setAttribute("role", "listbox");
  list.setAttribute("aria-label", "Genes");
  input.after(list);
  input.setAttribute("role", "combobox");
  input.setAttribute("aria-autocomplete", "list");
  input.setAttribute("aria-controls", "hits");
  input.setAttribute("aria-expanded", "false");
  let chosen = -1;
  let timer = 0;
  let asked = 0;

  const close = () => {
    list.hidden = true;
    chosen = -1;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
  };
  const go = (item) => {
    window.location.href = `${input.dataset.gene}?name=${encodeURIComponent(item.dataset.gene)}`;
  };
  const choose = (index) => {
    const items = list.children;
    if (!items.length) return;
    chosen = (index + items.length) % items.length;
    Array.from(items).forEach((item, i) => item.setAttribute("aria-selected", String(i === chosen)));
    input.setAttribute("aria-activedescendant", items[chosen].id);
  };
  const show = (genes) => {
    list.replaceChildren(...genes.map((gene, i) => {
      const item = document.createElement("li");
      const name = document.createElement("span");
      const more = document.createElement("small");
      item.id = `hit-${i}`;
      item.setAttribute("role", "option");
      item.setAttribute("aria-selected", "false");
      item.dataset.gene = gene.gene;
      name.textContent = gene.called;
      more.textContent = gene.gene === gene.called ? gene.gene_id : gene.gene;
      item.append(name, more);
      item.addEventListener("mousedown", (event) => { event.preventDefault(); go(item); });
      return item;
    }));
    chosen = -1;
    list.hidden = !genes.length;
    input.setAttribute("aria-expanded", String(genes.length > 0));
  };
  input.addEventListener("input", () => {
    clearTimeout(timer);
    const text = input.value.trim();
    if (!text) { close(); return; }
    timer = setTimeout(async () => {
      asked += 1;
      const mine = asked;
      try {
        const answer = await fetch(`${input.dataset.api}?n=8&q=${encodeURIComponent(text)}`);
        if (answer.ok && mine === asked && document.activeElement === input) {
          show((await answer.json()).genes);
        }
      } catch { close(); } // the server has ended; the form says so
    }, 150);
  });
  input.addEventListener("keydown", (event) => {
    if (list.hidden) return;
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      choose(event.key === "ArrowDown" ? chosen + 1 : chosen < 0 ? -1 : chosen - 1);
    } else if (event.key === "Enter" && chosen >= 0) {
      event.preventDefault();
      go(list.children[chosen]);
    } else if (event.key === "Escape") {
      event.preventDefault(); // it would clear what was typed
      close();
    }
  });
  input.addEventListener("blur", close);
}

document.querySelectorAll("table.sortable").forEach(sortable);
document.querySelectorAll("input[data-api]").forEach(suggesting);
document.querySelectorAll("select[data-submit]").forEach((select) => {
  select.addEventListener("change", () => select.form.requestSubmit());
});
document.querySelectorAll("a[data-reload]").forEach((link) => {
  setTimeout(() => window.location.reload(), 1000 * Number(link.dataset.reload));
});
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, textarea, select");
  const input = document.getElementById("q");
  if (event.key === "/" && !typing && input) {
    event.preventDefault();
    input.focus();
    input.select();
  }
});
