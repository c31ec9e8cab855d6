package httpapi

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"

	"riverbeat/internal/riverbeat"
)

// pageParams are the query parameters of every list.
type pageParams struct {
	PageSize  int    `query:"page_size" def:"50" minimum:"1" maximum:"1000" doc:"How many items a page has at most."`
	PageToken string `query:"page_token" doc:"The next_page_token of the page before; the other parameters must be the same as for that page, but for page_size."`
}

// list is a page of a list.
type list[T any] struct {
	Items         []T     `json:"items" nullable:"false"`
	NextPageToken *string `json:"next_page_token" doc:"What to give as page_token for the next page; null on the last one."`
}

// pageToken is what is in the opaque token: a place in one list.
type pageToken[C any] struct {
	Digest []byte `json:"d"` // of the list's filters and order
	Cursor C      `json:"c"`
}

// digest tells one list from another: by what is asked for, not by its spelling.
func digest(filter any) ([]byte, error) {
	raw, err := encode(filter)
	sum := sha256.Sum256(raw)
	return sum[:9], err
}

// writeToken makes the token of the place where the next page of a list begins.
func writeToken[C any](filter any, cursor C) (*string, error) {
	d, err := digest(filter)
	if err != nil {
		return nil, err
	}
	raw, err := encode(pageToken[C]{d, cursor})
	if err != nil {
		return nil, err
	}
	token := base64.RawURLEncoding.EncodeToString(raw)
	return &token, nil
}

// readToken reads the place that token says; nil for the first page. A token of
// another list is refused.
func readToken[C any](filter any, token string) (*C, error) {
	if token == "" {
		return nil, nil //nolint:nilnil // no token is the first page
	}
	d, err := digest(filter)
	if err != nil {
		return nil, err
	}
	invalid := riverbeat.InvalidField("invalid_page_token", "page_token",
		"is not one that this list gave with these filters and this order; begin again without it")
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		return nil, invalid
	}
	if _, err := checkJSON(raw); err != nil {
		return nil, invalid
	}
	var t pageToken[C]
	if json.Unmarshal(raw, &t) != nil || string(t.Digest) != string(d) {
		return nil, invalid
	}
	return &t.Cursor, nil
}

// pageOf answers a page of a list whose filter is asked; next is nil on the last
// one.
func pageOf[N, T, C any](asked any, page []N, show func(N) T, next *C) (*answer[list[T]], error) {
	found := list[T]{Items: make([]T, len(page))}
	for i, n := range page {
		found.Items[i] = show(n)
	}
	if next == nil {
		return ok(found), nil
	}
	var err error
	found.NextPageToken, err = writeToken(asked, *next)
	return ok(found), err
}
