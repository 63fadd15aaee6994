package main

import (
	"sync"
	"time"
)

type account struct {
	mutex   sync.Mutex
	balance int
}

type accounts struct {
	byName map[string]*account
}

func newAccounts() *accounts {
	return &accounts{byName: map[string]*account{"till": {}, "safe": {}, "bank": {}}}
}

// transfer locks both accounts, in the order they are given. The leak: two transfers in opposite directions each hold
// what the other one wants, and everybody after them waits for either.
func (a *accounts) transfer(from, to string, amount int) {
	source, destination := a.byName[from], a.byName[to]
	if source == nil || destination == nil || source == destination {
		return
	}
	source.mutex.Lock()
	defer source.mutex.Unlock()
	audit()
	destination.mutex.Lock()
	defer destination.mutex.Unlock()
	source.balance -= amount
	destination.balance += amount
}

func audit() {
	time.Sleep(5 * time.Millisecond)
}
