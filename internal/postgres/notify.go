package postgres

import "context"

// The channels on which nodes hear of changes. Channels belong to the whole
// database, so their full name begins with the schema.
const (
	ChannelSchedules = "schedules" // recurrences of enabled schedules changed
	ChannelLines     = "lines"     // the line of the lock key in the payload may move
)

// Notify sends a notification when the transaction commits.
func (tx *Tx) Notify(ctx context.Context, channel, payload string) error {
	_, err := tx.Exec(ctx, "SELECT pg_notify($1, $2)", tx.schema+"."+channel, payload)
	return err
}
