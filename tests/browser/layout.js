// Returns a line for each thing that is wrong. What scrolls in a box of its own may be wider than that.
([slack, named, length]) => {
  const wrong = [], wide = document.documentElement.scrollWidth;
  if (wide > innerWidth) wrong.push(`the page is ${wide} wide on a screen of ${innerWidth}`);
  const shown = new Map();
  // what is there for the ear alone is clipped to nothing
  const isShown = (element) => {
    if (element === document.body) return true;
    if (!shown.has(element)) shown.set(element, getComputedStyle(element).clipPath === "none"
      && element.checkVisibility({ contentVisibilityAuto: true, opacityProperty: true, visibilityProperty: true })
      && !element.matches(".skip:not(:focus), option") && isShown(element.parentElement));
    return shown.get(element);
  };
  const scrolls = (element) => element.closest("pre, .tree, .wide, .nav, dialog");
  const boxes = [];
  // of what scrolls in a box of its own the part that is in sight
  const add = (element, words, box) => {
    const frame = scrolls(element)?.getBoundingClientRect() ?? { left: -1e6, top: -1e6, right: 1e6, bottom: 1e6 };
    const seen = { left: Math.max(box.left, frame.left), right: Math.min(box.right, frame.right),
      top: Math.max(box.top, frame.top), bottom: Math.min(box.bottom, frame.bottom) };
    if (seen.right - seen.left > 1 && seen.bottom - seen.top > 1) boxes.push({ element, words, box: seen });
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    if (!node.data.trim() || !isShown(element) || element.closest("svg, script, noscript")) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    for (const box of range.getClientRects()) add(element, node.data, box);
  }
  for (const element of document.querySelectorAll("input, select, textarea, button, .button, progress, svg.chart, .tag"))
    if (isShown(element)) add(element, element.textContent || element.name || element.tagName, element.getBoundingClientRect());
  const say = (each) => JSON.stringify(each.words.trim().slice(0, length));
  for (const each of boxes) {
    if (each.box.left < -1 || each.box.right > innerWidth + 1)
      wrong.push(`${say(each)} reaches from ${Math.round(each.box.left)} to ${Math.round(each.box.right)}`);
  }
  // what floats above the page is meant to
  const floats = (element) => element.closest(".frozen, .menu > div, .menu > form, dialog, .marked, .lostwords");
  const flat = boxes.filter((each) => !floats(each.element)).sort((a, b) => a.box.top - b.box.top);
  flat.forEach((each, index) => {
    for (let next = index + 1; next < flat.length && flat[next].box.top < each.box.bottom - slack; next++) {
      const other = flat[next];
      if (each.element.contains(other.element) || other.element.contains(each.element)) continue;
      const across = Math.min(each.box.right, other.box.right) - Math.max(each.box.left, other.box.left);
      const down = Math.min(each.box.bottom, other.box.bottom) - Math.max(each.box.top, other.box.top);
      if (across > slack && down > slack) wrong.push(`${say(each)} and ${say(other)} lie over one another`);
    }
  });
  for (const element of document.querySelectorAll("body *")) {
    const style = getComputedStyle(element);
    if (!/hidden|clip/.test(style.overflowX) || !isShown(element) || element.closest("svg, progress, summary, input")) continue;
    if (element.scrollWidth > element.clientWidth + 1 && element.clientWidth > 1)
      wrong.push(`${element.tagName}.${element.className} cuts off ${JSON.stringify(element.textContent.trim().slice(0, length))}`);
  }
  return wrong.slice(0, named);
}
