// A page that grows at its end stays there while its reader is there.
const slack = 60;
let following = true;

function toEnd() {
  if (following) scrollTo({ top: document.documentElement.scrollHeight });
}

addEventListener("scroll", () => {
  following = innerHeight + scrollY >= document.documentElement.scrollHeight - slack;
}, { passive: true });

new MutationObserver(toEnd).observe(document.getElementById("content"), { childList: true, subtree: true });
toEnd();
