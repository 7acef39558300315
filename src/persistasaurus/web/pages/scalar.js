// Shows the OpenAPI document of this server, with nothing from another host: no fonts, no proxy, no
// telemetry, no assistant.
const nonce = document.currentScript.nonce;
const create = document.createElement.bind(document);

// Parts of Scalar write style elements without the nonce, which the page's policy refuses.
document.createElement = (name, options) => {
  const element = create(name, options);
  if (String(name).toLowerCase() === "style") element.nonce = nonce;
  return element;
};

document.addEventListener("DOMContentLoaded", () => {
  const reference = document.getElementById("reference");
  const documentUrl = new URL(reference.dataset.document, location.href);
  Scalar.createApiReference(reference, {
    url: documentUrl.href,
    servers: [{ url: new URL(".", documentUrl).href.replace(/\/$/, "") }],
    agent: { disabled: true },
    hideClientButton: true,
    mcp: { disabled: true },
    showDeveloperTools: "never",
    telemetry: false,
    withDefaultFonts: false,
  });
});
