package httpapi

import (
	"net/http"

	"github.com/gin-gonic/gin"
	"github.com/swaggest/swgui"
	"github.com/swaggest/swgui/v5emb"
)

// Where the documentation stands.
const (
	openAPIPath = "/openapi.json"
	docsPath    = "/docs"
)

// docsPolicy lets the page use what this server has, and nothing from elsewhere.
// Swagger UI's page has its script and styles inline.
const docsPolicy = "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; " +
	"img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"

// serveDocs serves the OpenAPI document and a page that shows it, whose assets
// are in this binary.
func (a *api) serveDocs(engine *gin.Engine) {
	document, err := encode(a.openAPI)
	if err != nil {
		panic(err) // made of our own types
	}
	get := func(path string, serve gin.HandlerFunc) {
		engine.GET(path, serve)
		engine.HEAD(path, serve)
	}
	get(openAPIPath, func(c *gin.Context) {
		writeBody(c, http.StatusOK, "application/json", document)
	})
	page := v5emb.NewHandlerWithConfig(swgui.Config{
		Title: "Riverbeat API", SwaggerJSON: openAPIPath, BasePath: docsPath + "/",
		SettingsUI: map[string]string{"defaultModelsExpandDepth": "1"},
	})
	show := func(c *gin.Context) {
		c.Header("Content-Security-Policy", docsPolicy)
		page.ServeHTTP(c.Writer, c.Request)
	}
	get(docsPath, show)
	get("/", func(c *gin.Context) { c.Redirect(http.StatusFound, docsPath) })
	get(docsPath+"/*file", show)
}
