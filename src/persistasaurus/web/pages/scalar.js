// Shows the OpenAPI document of this server, with nothing from another host: no fonts, no proxy, no
// telemetry, no assistant.
const reference = document.getElementById("reference");
Scalar.createApiReference(reference, {
  url: reference.dataset.document,
  servers: [{ url: new URL(".", new URL(reference.dataset.document, location.href)).href.replace(/\/$/, "") }],
  agent: { disabled: true },
  hideClientButton: true,
  mcp: { disabled: true },
  showDeveloperTools: "never",
  telemetry: false,
  withDefaultFonts: false,
});
