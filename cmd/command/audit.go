package command

import (
	"strconv"
	"time"

	"github.com/spf13/cobra"
)

// shownChange is what tables show of an entry of the audit trail.
type shownChange struct {
	ID         int64     `json:"id"`
	At         time.Time `json:"at"`
	Actor      string    `json:"actor"`
	Address    *string   `json:"address"`
	Action     string    `json:"action"`
	ObjectType string    `json:"object_type"`
	ObjectID   string    `json:"object_id"`
}

var changeNoun = noun[shownChange]{
	one: "change",
	columns: []column{
		{head: "AT"},
		{head: "ACTOR", least: 12},
		{head: "ACTION"},
		{head: "OBJECT", least: 16},
		{head: "ADDRESS"},
		{head: "ID"},
	},
	row: func(e shownChange) []string {
		return []string{stamp(&e.At), e.Actor, e.Action, e.ObjectID, orDash(e.Address), strconv.FormatInt(e.ID, 10)}
	},
	name: func(e shownChange) string { return strconv.FormatInt(e.ID, 10) },
}

func newAudit() *cobra.Command {
	filters := []filter{
		{flag: "actor", param: "actor", kind: "name", doc: "By this one."},
		{flag: "key-id", param: "key_id", kind: "id", doc: "With the key of this id."},
		{flag: "action", param: "action", kind: "action", doc: "Of this action, such as schedule.change."},
		{flag: "object-type", param: "object_type", kind: "type", doc: "Of things of this type, such as schedule."},
		{flag: "object-id", param: "object_id", kind: "id", doc: "Of the thing with this id."},
		{flag: "from", param: "from", kind: byTime, doc: "At it or after."},
		{flag: "to", param: "to", kind: byTime, doc: "Before it."},
	}
	c := apiCommand{
		use: "audit", short: "Tell who changed what", args: noArgs,
		long: "Uses the API of a server; see 'riverbeat login'. The newest change comes first;\n" +
			"-o json has what a thing was and is then. What was done to keys is told to\n" +
			"admins only.",
		do: func(c *call, _ []string) error {
			return list(c, changeNoun, "/audit", queryOf(c.Command, filters))
		},
	}.command()
	addFilters(c, filters)
	addLimit(c, 50)
	return c
}
