package main

import (
	"sync"
	"time"
)

// A hub passes events to subscribers and keeps sessions fresh.
type hub struct {
	mutex       sync.Mutex
	subscribers []chan string
	sessions    map[string]time.Time
}

func newHub() *hub {
	return &hub{sessions: map[string]time.Time{}}
}

func (h *hub) subscribe() {
	events := make(chan string)
	h.mutex.Lock()
	h.subscribers = append(h.subscribers, events)
	h.mutex.Unlock()
	go pump(events)
}

// pump has no way to learn that its subscriber has gone. The leak: it goes round this loop for ever, with a new timer
// each time.
func pump(events chan string) {
	for {
		select {
		case event, open := <-events:
			if !open {
				return
			}
			deliver(event)
		case <-time.After(5 * time.Minute):
			deliver("still here")
		}
	}
}

func deliver(string) {}

// startSession refreshes a session now and then. The leak: nothing stops the ticker, and stopping it would not end the
// loop either.
func (h *hub) startSession(user string) {
	ticker := time.NewTicker(10 * time.Minute)
	go func() {
		for now := range ticker.C {
			h.mutex.Lock()
			h.sessions[user] = now
			h.mutex.Unlock()
		}
	}()
}
