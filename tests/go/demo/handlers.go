package main

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"
)

type shop struct {
	hub      *hub
	jobs     *jobs
	accounts *accounts

	mutex  sync.Mutex
	orders map[string]*order
}

type order struct {
	shipped chan struct{}
}

func newShop() *shop {
	return &shop{hub: newHub(), jobs: newJobs(8), accounts: newAccounts(), orders: map[string]*order{}}
}

func (s *shop) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/health", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("/search", s.search)
	mux.HandleFunc("/track", s.track)
	mux.HandleFunc("/subscribe", s.subscribe)
	mux.HandleFunc("/login", s.login)
	mux.HandleFunc("/import", s.importItems)
	mux.HandleFunc("/transfer", s.transfer)
	mux.HandleFunc("/resize", s.resize)
	return mux
}

// search gives up after 20 ms. The leak: the query then sends its result to nobody, for ever; a channel with room for one
// would let it go.
func (s *shop) search(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 20*time.Millisecond)
	defer cancel()
	results := make(chan string)
	go func() {
		results <- query(r.URL.Query().Get("q"))
	}()
	select {
	case found := <-results:
		fmt.Fprintln(w, found)
	case <-ctx.Done():
		http.Error(w, "the search took too long", http.StatusGatewayTimeout)
	}
}

func query(words string) string {
	if words == "everything" {
		time.Sleep(50 * time.Millisecond)
	}
	return "results for " + words
}

// track answers when the order ships. The leak: it does not look at the request's context, so it waits on after the
// customer has gone.
func (s *shop) track(w http.ResponseWriter, r *http.Request) {
	order := s.order(r.URL.Query().Get("order"))
	<-order.shipped
	fmt.Fprintln(w, "shipped")
}

func (s *shop) order(id string) *order {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.orders[id] == nil {
		s.orders[id] = &order{shipped: make(chan struct{})}
	}
	return s.orders[id]
}

func (s *shop) subscribe(w http.ResponseWriter, r *http.Request) {
	s.hub.subscribe()
	w.WriteHeader(http.StatusAccepted)
}

func (s *shop) login(w http.ResponseWriter, r *http.Request) {
	s.hub.startSession(r.RemoteAddr)
	w.WriteHeader(http.StatusNoContent)
}

func (s *shop) importItems(w http.ResponseWriter, r *http.Request) {
	s.jobs.importAll([]string{"shoes", "", "hats"})
	w.WriteHeader(http.StatusAccepted)
}

func (s *shop) transfer(w http.ResponseWriter, r *http.Request) {
	go s.accounts.transfer(r.URL.Query().Get("from"), r.URL.Query().Get("to"), 1)
	w.WriteHeader(http.StatusAccepted)
}

func (s *shop) resize(w http.ResponseWriter, r *http.Request) {
	s.jobs.submit(func() { time.Sleep(time.Millisecond) })
	w.WriteHeader(http.StatusAccepted)
}
