"use strict";
// Search, filters, pages and colours. The page can be read without it. What a record says is only ever set as text.

const root = document.documentElement;
root.classList.add("js");
const grouped = (n) => n.toLocaleString("en-US");

// Colours: as the system has them, light or dark.
const theme = document.getElementById("theme");
const themes = ["system", "light", "dark"];
let memory = null; // a page from disk may have none
try { memory = window.localStorage; } catch (_) { /* then nothing is remembered */ }
const setTheme = (name) => {
  if (name === "system") delete root.dataset.theme; else root.dataset.theme = name;
  theme.lastElementChild.textContent = name;
};
let chosen = (memory && memory.getItem("sft-theme")) || "system";
setTheme(themes.includes(chosen) ? chosen : "system");
theme.addEventListener("click", () => {
  chosen = themes[(themes.indexOf(chosen) + 1) % themes.length];
  setTheme(chosen);
  if (memory) memory.setItem("sft-theme", chosen);
});

// Contents fold away where the screen is narrow.
const contents = document.querySelector("nav details");
if (window.matchMedia("(max-width: 40rem)").matches) contents.open = false;

// Print: everything open, then as it was.
let shut = [];
window.addEventListener("beforeprint", () => {
  shut = [...document.querySelectorAll("details:not([open])")];
  for (const one of shut) one.open = true;
});
window.addEventListener("afterprint", () => { for (const one of shut) one.open = false; });

const wanted = (form) => {
  const filters = {};
  for (const select of form.querySelectorAll("select")) if (select.value) filters[select.dataset.filter] = select.value;
  return { text: form.querySelector("input").value.trim().toLowerCase(), filters };
};

const onChange = (form, apply) => {
  let waiting = 0;
  form.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(apply, 120); });
  form.addEventListener("submit", (event) => { event.preventDefault(); apply(); });
  form.addEventListener("reset", () => setTimeout(apply));
};

// Edited texts: all are in the page; those that do not match are hidden, and of each stage the first are shown.
const edits = document.querySelector('[data-tools="edits"]');
if (edits) {
  const list = document.getElementById("edits-list");
  const limit = Number(list.dataset.shown);
  const status = edits.querySelector(".status");
  const groups = [...list.querySelectorAll(".group")].map((section) => ({
    section,
    all: false,
    button: section.querySelector(".all"),
    rows: [...section.querySelectorAll(".edit")].map((row) => ({ row, by: row.dataset.by.split("\n"), said: null })),
  }));
  const textOf = (entry) => (entry.said ??= (entry.row.querySelector("header").textContent + "\n" +
    [...entry.row.querySelectorAll("dd, dt")].map((e) => versions(e)).join("\n")).toLowerCase());
  // A text before and after, so that words on both sides of a change are found as they stand.
  const versions = (element) => {
    const without = (tag) => {
      const copy = element.cloneNode(true);
      for (const gone of copy.querySelectorAll(tag + ", summary, .blank")) gone.remove();
      return copy.textContent;
    };
    return element.querySelector("ins, del") ? without("ins") + "\n" + without("del") : element.textContent;
  };
  const fits = (entry, { text, filters }) =>
    Object.entries(filters).every(([key, value]) => key === "by" ? entry.by.includes(value) : entry.row.dataset[key] === value) &&
    (!text || textOf(entry).includes(text));
  const apply = () => {
    const want = wanted(edits);
    let matching = 0, total = 0;
    for (const group of groups) {
      let own = 0;
      for (const entry of group.rows) {
        const fit = fits(entry, want);
        entry.row.hidden = !fit;
        entry.row.classList.toggle("beyond", fit && !group.all && own >= limit);
        own += fit;
      }
      group.section.hidden = !own;
      group.button.hidden = group.all || own <= limit;
      group.button.textContent = `Show all ${grouped(own)}`;
      matching += own;
      total += group.rows.length;
    }
    status.textContent = `${grouped(matching)} of ${grouped(total)} ${list.dataset.what || "edited rows"} match`;
  };
  for (const group of groups) group.button.addEventListener("click", () => {
    const next = group.section.querySelector(".edit.beyond:not([hidden])");
    group.all = true;
    apply();
    if (next) { next.tabIndex = -1; next.focus(); }
  });
  onChange(edits, apply);
  apply();
}

// All changes: rows as data, shown in pages.
const changes = document.querySelector('[data-tools="changes"]');
if (changes) {
  const { texts, rows, page: size, hidden } = JSON.parse(document.getElementById("changes-data").textContent);
  const strange = new RegExp(`(${hidden})\\1*`, "gu");
  const small = texts.map((text) => text.toLowerCase());
  const body = document.querySelector("#changes-table tbody");
  const status = changes.querySelector(".status");
  const pager = document.querySelector(".pager");
  const [earlier, later] = pager.querySelectorAll("button");
  const [WORD, PLACE, ID, SOURCE, BEFORE, AFTER, STAGE, WHY, DETAIL, BY] = Array(10).keys();
  const column = { word: WORD, source: SOURCE, stage: STAGE };
  const visible = (text) => text.replace(strange, (run) => `[${named(run)}]`);
  const named = (run) => {
    const point = run.codePointAt(0), times = [...run].length;
    return "U+" + point.toString(16).toUpperCase().padStart(4, "0") + (times > 1 ? ` ×${times}` : "");
  };
  let found = rows, at = 0;

  const put = (parent, text) => {
    let end = 0;
    for (const run of text.matchAll(strange)) {
      parent.append(text.slice(end, run.index));
      parent.append(made("span", named(run[0]), "mark"));
      end = run.index + run[0].length;
    }
    parent.append(text.slice(end));
    return parent;
  };
  const made = (tag, text, name) => {
    const element = document.createElement(tag);
    if (name) element.className = name;
    return text ? put(element, text) : element;
  };
  const cell = (text, name) => {
    const element = made("td", text, text && name);
    element.dir = "auto";
    return element;
  };
  const line = (row) => {
    const tr = document.createElement("tr"), head = document.createElement("th"), word = document.createElement("td");
    head.scope = "row";
    head.append(made("code", texts[row[PLACE]]), made("span", texts[row[ID]].slice(0, 12), "under mono"));
    word.append(made("span", texts[row[WORD]], "chip word"));
    const makers = row[BY].map((i) => texts[i]).join(", ");
    tr.append(head, word, cell(texts[row[BEFORE]]), cell(texts[row[AFTER]]), made("td", texts[row[STAGE]]), cell(makers), cell(texts[row[WHY]]), cell(texts[row[DETAIL]], "free"));
    return tr;
  };
  const show = (fresh) => {
    if (fresh) body.replaceChildren(...found.slice(at, at + size).map(line));
    status.textContent = `${grouped(found.length)} of ${grouped(rows.length)} changes match`;
    pager.hidden = found.length <= size;
    pager.querySelector(".where").textContent = found.length ? `${grouped(at + 1)}–${grouped(Math.min(at + size, found.length))} of ${grouped(found.length)}` : "";
    earlier.disabled = at === 0;
    later.disabled = at + size >= found.length;
  };
  const apply = () => {
    const { text, filters } = wanted(changes);
    const hit = new Uint8Array(texts.length);
    if (text) small.forEach((value, i) => { hit[i] = value.includes(text); });
    const tests = Object.entries(filters).map(([key, value]) => {
      const same = new Set(texts.flatMap((own, i) => visible(own) === value ? [i] : []));
      return key === "by" ? (row) => row[BY].some((i) => same.has(i)) : (row) => same.has(row[column[key]]);
    });
    found = rows.filter((row) => tests.every((test) => test(row)) &&
      (!text || row[BY].some((i) => hit[i]) || row.slice(0, BY).some((i) => hit[i])));
    at = 0;
    show(true);
  };
  pager.addEventListener("click", (event) => {
    const step = Number(event.target.dataset.step || 0);
    if (!step) return;
    at += step * size;
    show(true);
    document.getElementById("changes-table").scrollIntoView({ block: "start" });
  });
  for (const link of document.querySelectorAll("[data-show]")) link.addEventListener("click", () => {
    changes.reset();
    changes.querySelector('[data-filter="word"]').value = link.dataset.show;
    setTimeout(apply);
  });
  onChange(changes, apply);
  show(false);
}

// "/" goes to the search that is nearest, Escape clears it.
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, select, textarea");
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
    const away = (form) => Math.abs(form.getBoundingClientRect().top);
    const [nearest] = [edits, changes].filter(Boolean).sort((a, b) => away(a) - away(b));
    if (!nearest) return;
    event.preventDefault();
    nearest.querySelector("input").focus();
  }
  const form = event.key === "Escape" && event.target.closest("[data-tools]");
  if (form) { event.preventDefault(); form.reset(); }
});
