// Package migrations holds the schema of Riverbeat as tern migrations, in
// order. River's own migrations come before them; package postgres applies
// both.
//
// Migrations run with search_path set to the product's schema, while nodes of
// the version before are working, some of which start again meanwhile. The
// rules that follow from that are in docs/development.md. Files go through
// text/template, so "{{" is code.
package migrations

import "embed"

// FS has the migrations as NNN_name.sql at its root.
//
//go:embed *.sql
var FS embed.FS
