# Two commands are the whole set-up: `make demo` and `make test`. Both make .venv if it is not there.
PYTHON ?= python3.11
PIP = .venv/bin/python -m pip --disable-pip-version-check -q
SOURCES = pyproject.toml constraints.txt

.PHONY: demo test lint docs results results-arms results-properties results-deepchem results-phonons dft results-dft results-design clean

demo: .venv/core
	.venv/bin/qdgnn demo

test: .venv/dev lint
	.venv/bin/pytest -q -m "slow or not slow" -n logical --dist loadfile

lint: .venv/dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

docs: .venv/dev
	.venv/bin/python -m sphinx -q -W --keep-going docs docs/_build

# Every table of README and model card, about an hour: make results DATA=folder M3GNET=folder
# DATA holds the sets named below, M3GNET is pretrained_models/M3GNet-MP-2021.2.8-PES of matgl
RESULTS = plugins/qdgnn_bench/results
results: .venv/dev
	.venv/bin/qdgnn bench-speed --m3gnet $(M3GNET) --json $(RESULTS)/speed.json \
	  --markdown $(RESULTS)/speed.md --plot $(RESULTS)/speed.png
	.venv/bin/qdgnn bench-solids --structures $(DATA)/mp36k/mp36k.jsonl.gz \
	  --elastic $(DATA)/elastic_mp/elastic_mp.jsonl.gz --displacements $(DATA)/pes_phonopy \
	  --m3gnet $(M3GNET) --json $(RESULTS)/solids.json --markdown $(RESULTS)/solids.md
	.venv/bin/qdgnn bench-matcalc $(DATA)/elastic_mp/elastic_mp.jsonl.gz --m3gnet $(M3GNET) \
	  --json $(RESULTS)/matcalc.json --markdown $(RESULTS)/matcalc.md
	.venv/bin/qdgnn bench-diffusion --fast --json $(RESULTS)/diffusion.json \
	  --markdown $(RESULTS)/diffusion.md
	.venv/bin/qdgnn bench-md --fast --hot-ps 4 --json $(RESULTS)/dynamics.json
	.venv/bin/qdgnn bench-card $(DATA)/pes_mattersim_bench/*.xyz.gz --m3gnet $(M3GNET) --chgnet \
	  --model qdgnn_ase/pretrained/default.safetensors --dynamics $(RESULTS)/dynamics.json \
	  --tables $(RESULTS) --readme README.md
	.venv/bin/qdgnn bench-transfer $(DATA)/wbm972/wbm972.jsonl.gz --json $(RESULTS)/transfer_wbm972.json \
	  --target formation_energy=corrected_formation_energy_per_atom
	.venv/bin/qdgnn bench-conductivity $(DATA)/obelix/obelix.csv \
	  --cifs $(DATA)/obelix/obelix_cifs.jsonl.gz --json $(RESULTS)/conductivity.json
	.venv/bin/qdgnn bench-conductivity $(DATA)/obelix/obelix.csv \
	  --cifs $(DATA)/obelix/obelix_cifs.jsonl.gz --rows .venv/rows
	.venv/bin/qdgnn bench-uncertainty $(DATA)/mp36k/mp36k.jsonl.gz -o .venv/uncertainty \
	  --target formation_energy=e_form_megnet2018 --target band_gap=band_gap_megnet2018 \
	  --json $(RESULTS)/uncertainty.json
	.venv/bin/qdgnn bench-explain $(DATA)/mp36k/mp36k.jsonl.gz --structures 50 --max-atoms 8 \
	  --json $(RESULTS)/explain.json --markdown $(RESULTS)/explain.md
	.venv/bin/qdgnn bench-conditions --json $(RESULTS)/conditions.json
	.venv/bin/qdgnn bench-scaling $(DATA)/mp36k/mp36k.jsonl.gz --json $(RESULTS)/scaling.json \
	  --target formation_energy=e_form_megnet2018 --target band_gap=band_gap_megnet2018
	.venv/bin/qdgnn bench-property-card --model qdgnn_ase/pretrained/properties.safetensors \
	  --readme README.md $(DATA)/mp36k/mp36k.jsonl.gz $(DATA)/elastic_mp/elastic_mp.jsonl.gz \
	  $(DATA)/phonons_matbench/phonons_matbench.jsonl.gz $(DATA)/mp40_ehull/mp40_ehull.jsonl.gz \
	  .venv/rows/obelix.jsonl

# What the potential is built of: arms of equal CPU time, three hours; goes on where it was killed
ARMS_RUN = build/arms
ARMS = quantum architecture teacher
SOFT = near rattled substituted relaxing strained dynamics
results-arms: .venv/dev
	mkdir -p $(ARMS_RUN)
	ln -sfn $(abspath $(DATA))/pes_mattersim_bench $(ARMS_RUN)/pes_mattersim_bench
	.venv/bin/python -m qdgnn_matgl.frames $(DATA)/mp36k/mp36k.jsonl.gz $(ARMS_RUN)/teacher.extxyz \
	  $(addprefix --kind ,$(SOFT)) --max-atoms 36 --keep 0.95 --seed 31 -n 5275
	for name in $(ARMS); do \
	  .venv/bin/qdgnn bench-arms plugins/qdgnn_bench/specifications/$$name.json \
	    --data $(ARMS_RUN) -o $(ARMS_RUN)/$$name && \
	  cp $(ARMS_RUN)/$$name/arms.json $(RESULTS)/arms_$$name.json && \
	  cp $(ARMS_RUN)/$$name/arms.md $(RESULTS)/arms_$$name.md || exit 1; \
	done

# Property models beside others on the same rows, six CPU hours; goes on where it was killed
PROPERTY_RUN = build/properties
COMPARE = .venv/bin/qdgnn bench-properties --seeds 0
PEERS = qdgnn,CGCNN,SchNet,MPNN,MEGNet
ABLATIONS = qdgnn,qdgnn-no-quantum,qdgnn-T0-alone,qdgnn-permuted-quantum,qdgnn-no-attention
ABLATIONS := $(ABLATIONS),qdgnn-no-penalty,qdgnn-autoencoder,qdgnn-single-task
results-properties: .venv/dev
	$(COMPARE) $(DATA)/mp36k/mp36k.jsonl.gz -o $(PROPERTY_RUN)/mp36k --readme README.md \
	  --target formation_energy=e_form_megnet2018 --target band_gap=band_gap_megnet2018 \
	  --minutes 30 --models $(PEERS)
	$(COMPARE) $(DATA)/elastic_mp/elastic_mp.jsonl.gz -o $(PROPERTY_RUN)/elastic \
	  --target bulk_modulus=K_VRH_GPa --target shear_modulus=G_VRH_GPa --minutes 5 \
	  --models $(PEERS)
	$(COMPARE) $(DATA)/phonons_matbench/phonons_matbench.jsonl.gz -o $(PROPERTY_RUN)/phonons \
	  --target last_phonon_peak=last_phdos_peak_cm-1 --minutes 2.5 --folds 5 --models $(PEERS)
	.venv/bin/qdgnn bench-properties $(DATA)/mp36k/mp36k.jsonl.gz -o $(PROPERTY_RUN)/ablations \
	  --target formation_energy=e_form_megnet2018 --target band_gap=band_gap_megnet2018 \
	  --minutes 3 --seeds 0,1,2 --models $(ABLATIONS)
	for kind in json md; do \
	  cp $(PROPERTY_RUN)/ablations/properties.$$kind $(RESULTS)/properties_ablations.$$kind && \
	  cp $(PROPERTY_RUN)/mp36k/properties.$$kind $(RESULTS)/properties.$$kind && \
	  cp $(PROPERTY_RUN)/elastic/properties.$$kind $(RESULTS)/properties_elastic.$$kind && \
	  cp $(PROPERTY_RUN)/phonons/properties.$$kind $(RESULTS)/properties_phonons.$$kind || exit 1; \
	done
	.venv/bin/qdgnn bench-fidelity $(DATA)/perov5/perov5.jsonl.gz --target band_gap=dir_gap \
	  --level gpaw/GLLB-SC -o $(PROPERTY_RUN)/fidelity --json $(RESULTS)/fidelity.json

# DeepChem's crystal models beside ours, about an hour; goes on where it was killed
DEEPCHEM_RUN = build/deepchem
DEEPCHEM_RESULTS = plugins/qdgnn_deepchem/results
results-deepchem: .venv/dev
	.venv/bin/qdgnn bench-deepchem $(DATA)/perov5/perov5.jsonl.gz --structures 18928 --epochs 12 \
	  --rate 0.001 --rate 0.004 --rate 0.016 -o $(DEEPCHEM_RUN)/perov5
	.venv/bin/qdgnn bench-deepchem $(DATA)/mp36k/mp36k.jsonl.gz --column e_form_megnet2018 \
	  --structures 10000 --epochs 10 -o $(DEEPCHEM_RUN)/mp36k
	for set in perov5 mp36k; do \
	  for kind in json md; do \
	    cp $(DEEPCHEM_RUN)/$$set/bench.$$kind $(DEEPCHEM_RESULTS)/$$set.$$kind || exit 1; \
	  done \
	done

# The tables of the phonon plugin, about an hour; goes on where it was killed
PHONON_RUN = build/phonons
PHONON_RESULTS = plugins/qdgnn_phonons/results
results-phonons: .venv/dev
	.venv/bin/qdgnn bench-sampling --json $(PHONON_RESULTS)/sampling.json
	.venv/bin/qdgnn bench-phonons --data $(DATA) -n 110 -o $(PHONON_RUN)
	.venv/bin/qdgnn bench-phonon-curves $(DATA)/pes_phonopy --m3gnet $(M3GNET) \
	  --json $(PHONON_RESULTS)/curves.json
	.venv/bin/qdgnn bench-phonon-arms --family NaCl --family Si --epochs 150 -o $(PHONON_RUN)
	.venv/bin/qdgnn bench-phonon-arms --family CsPbI3 --epochs 150 --size 20 --size 40 \
	  -o $(PHONON_RUN)
	.venv/bin/qdgnn bench-phonon-arms --family Ag3SBr --epochs 150 --size 20 -o $(PHONON_RUN)
	cp $(addprefix $(PHONON_RUN)/,phonons.json phonons.md arms.json arms.md arms.png) \
	  $(PHONON_RESULTS)

# GPAW (GPL) from source, serial: half a minute with a C++ compiler and no other system package
dft: .venv/core
	printf "mpi = False\ncompiler = 'g++'\nlibraries = []\nnoblas = True\nnolibxc = True\n" \
	  > .venv/gpaw_siteconfig.py
	GPAW_CONFIG=$(CURDIR)/.venv/gpaw_siteconfig.py $(PIP) install -c constraints.txt -e '.[dft,xtb]'

# The tables of the DFT plugin, about four CPU hours, after results-phonons; goes on where it was killed
DFT_RESULTS = plugins/qdgnn_dft/results
DFT_RUN = build/dft
ATOMS = Al B Ba Be C Ca Cl Cr Cs F Fe H I K Li Mg N Na O P Pb S Sc Si Ti V
ELEMENTS = $(ATOMS) Ag As Au Bi Cd Co Ge Hf In Nb Rb Sb Sn Sr Ta Y Zr
REFERENCES = .venv/bin/qdgnn dft-references --store $(DFT_RUN)/labels.db --jobs 2 \
  -o plugins/qdgnn_dft/references.json
results-dft: dft
	mkdir -p $(DFT_RUN)
	.venv/bin/qdgnn bench-dft-labels $(DATA)/perov5/perov5.jsonl.gz --energy heat_ref \
	  --gap ind_gap -n 300 --store $(DFT_RUN)/labels.db --jobs 2 --json $(DFT_RESULTS)/labels.json
	.venv/bin/qdgnn bench-fidelity $(DATA)/perov5/perov5.jsonl.gz --target band_gap=ind_gap \
	  --level gpaw/GLLB-SC --store $(DFT_RUN)/labels.db -o $(DFT_RUN)/fidelity \
	  --json $(RESULTS)/fidelity_gpaw.json
	$(REFERENCES) $(ELEMENTS) --kind elements
	$(REFERENCES) $(ATOMS) --kind atoms
	.venv/bin/qdgnn bench-dft --store $(DFT_RUN)/solids.db --json $(DFT_RESULTS)/dft.json \
	  --markdown $(DFT_RESULTS)/dft.md
	.venv/bin/qdgnn bench-dft-convergence --store $(DFT_RUN)/solids.db \
	  --json $(DFT_RESULTS)/convergence.json
	.venv/bin/qdgnn bench-phonon-gaps --store $(DFT_RUN)/frames.db --jobs 2 \
	  $(foreach family,Si NaCl,$(foreach t,300 600,$(PHONON_RUN)/$(family)_tight_binding/test_$(t)K.extxyz)) \
	  --json $(PHONON_RESULTS)/gaps.json
	.venv/bin/qdgnn bench-store --json $(DFT_RESULTS)/store.json
	.venv/bin/qdgnn bench-active-learning --seeds 5 --pool 80 --epochs 10 \
	  --json $(DFT_RESULTS)/active_learning.json \
	  --markdown $(DFT_RESULTS)/active_learning.md

# The tables of the design plugin, about two CPU hours; goes on where it was killed
DESIGN_RESULTS = plugins/qdgnn_design/results
DESIGN_RUN = build/design
DESIGN = .venv/bin/qdgnn bench-design -o $(DESIGN_RUN)/bench
results-design: .venv/dev dft
	$(DESIGN) --task EMT-fcc8 --task strain+defects
	$(DESIGN) --task perovskite --methods hybrid,bayes,hill-climb,genetic,random
	$(DESIGN) --task garnet --methods hybrid,bayes,hill-climb,genetic,random
	$(DESIGN) --task conflict --methods hybrid,hill-climb,genetic,annealing,random
	$(DESIGN) --task gap
	.venv/bin/qdgnn bench-design-case -o $(DESIGN_RUN)/case --budget 100
	cp $(addprefix $(DESIGN_RUN)/bench/design,.json .md .png) $(DESIGN_RESULTS)
	cp $(addprefix $(DESIGN_RUN)/case/case_study,.json .md) $(DESIGN_RESULTS)

# torch first and pinned: an unpinned one brings gigabytes of CUDA packages
.venv/core: $(SOURCES)
	$(PYTHON) -m venv .venv
	$(PIP) install -c constraints.txt torch
	$(PIP) install -c constraints.txt -e .
	touch $@

.venv/dev: .venv/core
	$(PIP) install -c constraints.txt -e '.[all,dev]'
	touch $@

clean:
	rm -rf .venv build dist docs/_build demo_output *.egg-info
